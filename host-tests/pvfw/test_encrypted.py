"""Dumps whose configuration has recipients: what is on the disk, and what is said of them."""

import random

import pytest
from fixtures import streamreader
from fixtures.agetools import Person
from fixtures.armedguest import armed, settings
from fixtures.crashedguest import GOOD, REGION, Crash

import pvfw.stream
from pvdump.arm import blob
from pvfw import config, main, superblock
from pvfw.errors import CoreError
from xenpv import abi

ALICE, BOB = Person(), Person()
POOL = (REGION[0], REGION[0] + 128 * 4096)  # as many pages as image.yaml gives the image
REQUIRED = f"{GOOD} pvdump.recipients=required"
RELEASE = "6.1.0-test"


def everything(crash):
    """Return all that a dump's run leaves in clear, but for the console."""
    nodes = [crash.reported(key) for key in ("state", "reason", "progress")]
    return bytes(crash.disk.data) + "\n".join(nodes).encode()


@pytest.mark.parametrize(
    ("people", "compress"), [([ALICE, BOB], "zstd"), ([ALICE], "none")], ids=["zstd", "none"]
)
def test_each_recipient_reads_the_dump_that_would_have_been_written(people, compress, capsys):
    line = f"{REQUIRED} pvdump.compress={compress}"
    plain = Crash(line.replace(" pvdump.recipients=required", ""))
    plain.run()
    expected = streamreader.read(bytes(plain.disk.data))
    crash = armed(settings(people), cmdline=line, guest={"region": POOL})
    assert crash.run() == abi.SHUTDOWN_poweroff
    for person in people:
        found = streamreader.decrypted(bytes(crash.disk.data), person.by_pyrage)
        assert found.whole
        # The image's own memory is not the same: it is given less of it here.
        assert found.pages.items() >= expected.pages.items()
        assert (found.notes, found.facts["release"]) == (expected.notes, RELEASE)
    block = crash.superblock()
    assert (block.state, block.format) == (superblock.COMPLETE, superblock.FORMAT_AGE)
    assert streamreader.age_file(bytes(crash.disk.data))[1]
    assert "encrypted to" in capsys.readouterr().out


def test_the_superblock_counts_the_bytes_on_the_disk():
    crash = armed(settings([ALICE]))
    crash.run()
    block = crash.superblock()
    end = block.data_offset + block.dump_size
    assert block.written == block.dump_size
    copy = block.copy_at()
    assert not any(crash.disk.data[end:copy])
    assert streamreader.age_file(bytes(crash.disk.data[:end]))[1]


def test_no_text_of_the_crashed_kernel_leaves_in_clear(capsys):
    crash = armed(settings([ALICE]), cmdline=REQUIRED)
    crash.run()
    said = capsys.readouterr().out
    assert RELEASE not in said
    assert RELEASE.encode() not in everything(crash)
    assert b"low memory is me" not in everything(crash)
    assert crash.superblock().release == ""
    assert "dump complete: 24 MiB" in said


FACTS = {"release": "9.8.7-other", "facts": {"SIZE(page)": 64}}


@pytest.mark.parametrize("clear", [False, True])
def test_lines_on_what_the_crashed_kernel_says_of_itself_are_not_told(clear, capsys):
    crash = armed(settings([ALICE], log_clear=clear, **FACTS), notes=(b"\x5a" * 512,))
    crash.run()
    said = capsys.readouterr().out
    assert ("9.8.7-other" in said) == ("VMCOREINFO is missing" in said) == clear


def test_log_clear_lets_the_texts_go():
    crash = armed(settings([ALICE], log_clear=True))
    crash.run()
    assert crash.superblock().release == RELEASE
    assert crash.superblock().format == superblock.FORMAT_AGE


def test_a_plain_dump_is_as_before():
    crash = armed(settings([]))
    crash.run()
    block = crash.superblock()
    assert (block.format, block.release) == (superblock.FORMAT_STREAM, RELEASE)


@pytest.mark.parametrize("error", [CoreError("secret"), KeyError("secret"), ValueError("secret")])
@pytest.mark.parametrize("clear", [False, True])
def test_an_error_that_may_quote_the_kernel_s_memory_is_told_by_its_kind_alone(
    error, clear, capsys, monkeypatch
):
    def fail(*_):
        raise error

    monkeypatch.setattr(pvfw.stream.Stream, "_put_memory", fail)
    crash = armed(settings([ALICE], log_clear=clear))
    if clear and not isinstance(error, CoreError):
        with pytest.raises(type(error)):
            main.main()
    else:
        crash.run()
    told = capsys.readouterr().out + crash.reported("reason") + crash.superblock().reason
    assert ("secret" in told) == clear
    assert clear or type(error).__name__ in told


DAMAGED = blob.encode(settings([ALICE]))[:-1] + b"\xff"
WITHOUT_NONCE = blob.pack([(config.RECIPIENT, config.REQUIRED, ALICE.public)])


@pytest.mark.parametrize(
    "content",
    [DAMAGED, WITHOUT_NONCE, blob.encode(settings([])), b"other module"],
    ids=["damaged", "without nonce", "without recipients", "none"],
)
def test_where_encryption_is_required_nothing_is_written_without_recipients(content, capsys):
    crash = armed(content, cmdline=REQUIRED)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert bytes(crash.disk.data) == crash.before
    assert "no usable configuration with any" in capsys.readouterr().out


@pytest.mark.parametrize("value", ["", "requird"])
def test_the_word_counts_even_where_it_was_mistyped(value, capsys):
    crash = armed(DAMAGED, cmdline=f"{GOOD} pvdump.recipients={value}")
    crash.run()
    assert bytes(crash.disk.data) == crash.before
    assert "required expected" in capsys.readouterr().out


def test_without_that_word_a_damaged_configuration_is_ignored_as_ever(capsys):
    crash = armed(DAMAGED)
    crash.run()
    assert crash.superblock().format == superblock.FORMAT_STREAM


def test_a_recipient_that_is_no_key_is_an_error_and_nothing_is_written(capsys):
    bad = settings([ALICE])
    bad.recipients.append(b"\1" + bytes(31))
    crash = armed(bad, cmdline=REQUIRED)
    crash.run()
    assert bytes(crash.disk.data) == crash.before
    assert "is no key" in capsys.readouterr().out


def test_a_dump_that_does_not_fit_opens_up_to_its_last_whole_pieces(capsys, tmp_path):
    crash = armed(settings([ALICE]), disk_size=3 << 20)
    crash.run()
    block = crash.superblock()
    assert block.state == superblock.PARTIAL
    assert "full" in block.reason
    file, is_whole = streamreader.age_file(bytes(crash.disk.data))
    assert not is_whole
    content, _ = ALICE.by_age(file, tmp_path)
    assert len(content) > block.room() - (200 << 10)
    target = bytes(crash.disk.data[: block.data_offset]) + content
    assert streamreader.read(target).facts["release"] == RELEASE


def test_a_dump_that_ends_early_has_all_that_was_given_and_its_end(capsys, monkeypatch):
    def fail(*_):
        raise CoreError("here it ends")

    monkeypatch.setattr(pvfw.writer.Writer, "manifest", fail)
    crash = armed(settings([ALICE]))
    crash.run()
    assert crash.superblock().state == superblock.PARTIAL
    assert streamreader.age_file(bytes(crash.disk.data))[1]
    stream = streamreader.decrypted(bytes(crash.disk.data), ALICE.by_pyrage)
    assert len(stream.pages) > 5000
    assert not stream.whole


@pytest.mark.parametrize("seed", range(8))
def test_every_prefix_of_the_disk_opens_up_to_its_last_whole_piece(seed, tmp_path, whole):
    content, stream, size, offset = whole
    cut = offset + random.Random(seed).randrange(size)
    file, _ = streamreader.age_file(content[:cut] + b"\xa5" * (len(content) - cut))
    assert len(file) > cut - offset - 18 * 4096
    found, _ = ALICE.by_age(file, tmp_path)
    assert stream.startswith(found)
    assert len(found) > len(file) - 65552 - 400 - len(file) // 4000


@pytest.fixture(scope="module")
def whole():
    """The bytes of a disk with a dump, its stream in clear, its bytes on the disk, and where."""
    crash = armed(settings([ALICE]))
    crash.run()
    content = bytes(crash.disk.data)
    block = crash.superblock()
    file, _ = streamreader.age_file(content)
    return content, ALICE.by_pyrage(file), block.dump_size, block.data_offset
