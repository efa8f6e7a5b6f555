"""`pvdump collect` and `pvdump info` of encrypted dumps, with a key and without."""

import io
import os
import random
import subprocess
import sys
from copy import copy
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from fixtures import agetools, streamreader
from fixtures.agetools import Person
from fixtures.armedguest import armed, settings
from fixtures.crashedguest import GOOD, LOADS, REGION
from fixtures.kdumpreader import Reader
from fixtures.sealing import DUMP, LOG, sealed_stream, target

from pvdump import cli
from pvdump.dump import disk as disks
from pvdump.dump.agechunks import AgeChunks
from pvdump.dump.collect import collect, collect_log
from pvdump.dump.decryption import Decrypted
from pvdump.dump.info import info, text
from pvfw import superblock
from pvfw.errors import DumpError, TargetRefused

ALICE, BOB, EVE = Person(), Person(), Person()
PIECE = 65536
TOOLS = ("pyrage", "age")


@pytest.fixture(scope="module")
def dumped() -> tuple[bytes, bytes]:
    """The disk with a guest's dump to Alice and Bob, and the guest's memory."""
    crash = armed(settings([ALICE, BOB]), cmdline=GOOD)
    crash.run()
    return bytes(crash.disk.data), crash.memory


@pytest.fixture
def disk(dumped: tuple[bytes, bytes], tmp_path: Path) -> Path:
    path = tmp_path / "disk"
    path.write_bytes(dumped[0])
    return path


@pytest.fixture
def key(tmp_path: Path) -> Path:
    return BOB.file(tmp_path)


@pytest.fixture(params=TOOLS)
def tool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """One of the tools, where the other one is not there."""
    only(request.param, monkeypatch)
    return str(request.param)


def only(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have just this tool: "pyrage", "age" or none."""
    if name != "pyrage":
        monkeypatch.setitem(sys.modules, "pyrage", None)
    monkeypatch.setenv("PATH", str(agetools.age().parent) if name == "age" else "/nonexistent")


def expected(memory: bytes) -> dict[int, bytes]:
    """The bytes of each range, by physical address, outside of the image's region."""
    return {
        paddr: memory[source : min(source + size, REGION[0])]
        for _, paddr, source, size in LOADS[:3]
    }


def found(content: bytes) -> dict[int, bytes]:
    """The bytes of the first segment at each physical address of an ELF vmcore."""
    parts: dict[int, bytes] = {}
    for segment in ELFFile(io.BytesIO(content)).iter_segments("PT_LOAD"):
        parts.setdefault(segment["p_paddr"], segment.data())
    return parts


def test_with_a_key_it_becomes_a_vmcore_of_the_guest_s_memory(
    disk: Path, key: Path, tmp_path: Path, dumped: tuple[bytes, bytes], tool: str
) -> None:
    out = tmp_path / "vmcore"
    done = collect(disk, out, form="elf", identity=key)
    assert (done.reason, done.encrypted) == ("", False)
    memory = found(out.read_bytes())
    for paddr, content in expected(dumped[1]).items():
        assert memory[paddr][: len(content)] == content
    assert info(disk)["collected"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["disk", "key.txt", "vmcore"]


def test_what_age_makes_of_the_saved_dump_becomes_the_same_vmcore(
    disk: Path, key: Path, tmp_path: Path
) -> None:
    saved, stream = tmp_path / "vmcore.age", tmp_path / "stream"
    collect(disk, saved, form="")
    subprocess.run([agetools.age(), "-d", "-i", key, "-o", stream, saved], check=True)
    ways = {"disk": (disk, key), "age": (saved, key), "stream": (stream, None)}
    for name, (source, identity) in ways.items():
        done = collect(source, tmp_path / f"{name}.out", form="kdump", identity=identity)
        assert (done.reason, done.unnoted) == ("", "")
    files = [(tmp_path / f"{name}.out").read_bytes() for name in ways]
    assert files[0] == files[1] == files[2]


def test_without_a_key_it_is_saved_byte_for_byte(
    disk: Path, tmp_path: Path, dumped: tuple[bytes, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["collect", str(disk), str(tmp_path / "vmcore")]) == 0
    saved = tmp_path / "vmcore.age"
    assert not (tmp_path / "vmcore").exists()
    assert saved.read_bytes() == streamreader.age_file(dumped[0])[0]
    assert saved.stat().st_mode & 0o777 == 0o600
    assert f"{saved}: " in (said := capsys.readouterr().out)
    assert "still encrypted" in said
    assert info(disk)["collected"]


@pytest.mark.parametrize(
    "arguments", [["--format", "elf"], ["--format", "kdump"], ["--compress", "zlib"], ["--log"]]
)
def test_what_only_a_key_can_give_is_refused_in_one_line(
    arguments: list[str], disk: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["collect", *arguments, str(disk), str(tmp_path / "out")]) == 1
    error = capsys.readouterr().err
    assert "--identity FILE" in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("out*"))


@pytest.mark.parametrize("log", [False, True])
def test_a_target_that_is_prepared_again_meanwhile_gives_no_file(
    log: bool, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "disk"
    block = target(path, sealed_stream([BOB]))
    real = Decrypted.fill

    def fill(clear: Decrypted, size: int = 1 << 40) -> None:
        real(clear, size)
        other = copy(block)
        other.uuid = bytes(range(1, 17))
        with path.open("r+b") as stream:
            stream.write(other.encode())

    monkeypatch.setattr(Decrypted, "fill", fill)
    out = tmp_path / "out"
    with pytest.raises(DumpError, match="was changed while it was copied"):
        collect_log(path, out, False, key) if log else collect(
            path, out, form="kdump", identity=key
        )
    assert not list(tmp_path.glob("out*"))


def test_a_key_of_somebody_else_gives_no_file(disk: Path, tmp_path: Path, tool: str) -> None:
    with pytest.raises(DumpError, match="cannot be decrypted with the keys in"):
        collect(disk, tmp_path / "out", form="kdump", identity=EVE.file(tmp_path))
    assert not list(tmp_path.glob("out*"))
    assert not info(disk)["collected"]


@pytest.mark.parametrize("content", [b"", b"AGE-SECRET-KEY-1QQQ\n", b"\xff\xfe", b"no key\n"])
def test_a_file_without_a_key_is_refused(
    content: bytes, disk: Path, tmp_path: Path, tool: str
) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(DumpError, match="key"):
        collect(disk, tmp_path / "out", form="kdump", identity=tmp_path / "key")


def test_a_missing_file_of_keys_is_named(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="nowhere: No such file"):
        collect(disk, tmp_path / "out", form="kdump", identity=tmp_path / "nowhere")


def test_a_key_may_come_by_a_pipe_that_is_read_once(
    disk: Path, key: Path, tool: str, tmp_path: Path
) -> None:
    reads, writes = os.pipe()
    try:
        os.write(writes, key.read_bytes())
        os.close(writes)
        out = tmp_path / "out"
        done = collect(disk, out, form="kdump", identity=Path(f"/dev/fd/{reads}"))
    finally:
        os.close(reads)
    assert done.reason == ""


def test_without_a_tool_the_line_names_the_command_that_gets_one(
    disk: Path, key: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only("none", monkeypatch)
    with pytest.raises(DumpError, match=r"`apt install age`.*-m pip install pyrage`"):
        collect(disk, tmp_path / "out", form="kdump", identity=key)


def test_a_key_for_a_dump_that_is_not_encrypted_changes_nothing(key: Path, tmp_path: Path) -> None:
    crash = armed(settings([]), cmdline=GOOD)
    crash.run()
    (tmp_path / "plain").write_bytes(crash.disk.data)
    assert collect(tmp_path / "plain", tmp_path / "out", form="kdump", identity=key).reason == ""


def test_info_says_that_it_is_encrypted(disk: Path) -> None:
    facts = info(disk)
    assert (facts["format"], facts["release"]) == ("age", None)
    assert "by age" in text(facts)


def test_a_lost_superblock_costs_nothing(disk: Path, key: Path, tmp_path: Path) -> None:
    raw = bytearray(disk.read_bytes())
    raw[:512] = bytes(512)
    raw[-4096:] = bytes(4096)
    disk.write_bytes(raw)
    done = collect(disk, tmp_path / "out", salvage=True, form="kdump", identity=key)
    assert done.detail == []
    saved = collect(disk, tmp_path / "saved", salvage=True, form="")
    assert saved.encrypted


# A small dump, whose bytes are all tried.


def test_the_log_is_had_without_the_rest(tmp_path: Path, key: Path, tool: str) -> None:
    path = tmp_path / "disk"
    target(path, sealed_stream([BOB], pages=3000))
    assert collect_log(path, tmp_path / "log", False, key) == []
    assert (tmp_path / "log").read_bytes() == LOG


def test_a_ready_target_has_none(tmp_path: Path, key: Path) -> None:
    path = tmp_path / "disk"
    block = target(path, sealed_stream([BOB]))
    block.state = superblock.READY
    path.write_bytes(block.encode() + path.read_bytes()[512:])
    for identity in (key, None):
        with pytest.raises(TargetRefused, match="ready for one"):
            collect(
                path, tmp_path / "out", form="" if identity is None else "elf", identity=identity
            )


def checked(path: Path, block: superblock.Superblock) -> tuple[AgeChunks, bytes]:
    """Read the age file without a key."""
    with disks.reading(path) as disk:
        chunks = AgeChunks(disk, block)
        return chunks, b"".join(chunks.pieces())


def test_each_flip_is_seen_without_a_key_and_costs_no_length(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    content = sealed_stream([ALICE], pages=60)
    block = target(path, content)
    clean = path.read_bytes()
    file = checked(path, block)[1]
    dice = random.Random(11)
    with path.open("r+b", buffering=0) as stream:
        headers = range(0, block.dump_size, 16 * 4096)
        places = [dice.randrange(block.dump_size) for _ in range(2000)]
        for place in places + [start + i for start in headers for i in range(48)]:
            at = block.data_offset + place
            stream.seek(at)
            stream.write(bytes([clean[at] ^ 1 << dice.randrange(8)]))
            chunks, got = checked(path, block)
            assert chunks.damage.number
            # But where the last chunk's header is lost, which has the length.
            assert len(got) == len(file) or not chunks.is_whole
            stream.seek(at)
            stream.write(clean[at : at + 1])


@pytest.mark.fuzz("age")
def test_damage_of_an_encrypted_dump_is_seen_with_a_key_and_without(fuzz, tmp_path: Path) -> None:
    """A few bytes, or a page of another dump, or of another place, are not what was written."""
    key = BOB.file(tmp_path)
    sound, other = tmp_path / "sound", tmp_path / "other"
    content = sealed_stream([BOB], pages=100)
    block = target(sound, content)
    target(other, sealed_stream([BOB], pages=60, dump=DUMP + 1))
    clean, strange = sound.read_bytes(), other.read_bytes()
    assert collect(sound, tmp_path / "whole", form="kdump", identity=key).reason == ""
    pages = Reader((tmp_path / "whole").read_bytes()).pages
    path = tmp_path / "disk"
    for seed in fuzz.seeds(60):
        dice = random.Random(seed)
        raw = bytearray(clean)
        kind = dice.choice(("bytes", "zeros", "older", "swapped"))
        at = block.data_offset + dice.randrange(block.dump_size)
        page = at // 4096 * 4096
        if kind == "bytes":
            raw[at : at + 3] = dice.randbytes(3)
        elif kind == "zeros":
            raw[page : page + 4096] = bytes(4096)
        elif kind == "older":
            raw[page : page + 4096] = strange[page : page + 4096]
        else:
            place = block.data_offset + dice.randrange(block.dump_size) // 4096 * 4096
            raw[page : page + 4096], raw[place : place + 4096] = (
                raw[place : place + 4096],
                raw[page : page + 4096],
            )
        if raw == clean:
            continue
        fuzz.done[kind] += 1
        path.write_bytes(raw)
        assert checked(path, block)[0].damage.number
        try:
            done = collect(path, tmp_path / f"out{seed}", form="kdump", identity=key)
        except DumpError:
            fuzz.done["not opened"] += 1
            continue
        assert done.reason or done.detail
        made = tmp_path / f"out{seed}"
        assert Reader(made.read_bytes()).pages.items() <= pages.items()
        made.unlink()


def test_a_damaged_chunk_is_named_and_what_stands_before_it_is_opened(
    tmp_path: Path, key: Path, tool: str
) -> None:
    path = tmp_path / "disk"
    block = target(path, sealed_stream([BOB], pages=100))
    raw = bytearray(path.read_bytes())
    raw[block.data_offset + 4 * PIECE + 100] ^= 1
    path.write_bytes(raw)
    done = collect(path, tmp_path / "out", form="kdump", identity=key)
    assert done.reason.startswith("decryption: ")
    assert "its CRC is wrong" in done.detail[0]
    assert done.marked
    assert 2 * PIECE < done.size < 4 * PIECE
    saved = collect(path, tmp_path / "saved", form="")
    assert "a place of the dump is damaged" in saved.reason


def cuts() -> list[int]:
    content = sealed_stream([BOB], pages=100)
    ends = range(16 * 4096, len(content), 16 * 4096)
    return [cut for end in ends for cut in (end - 4096, end - 1, end, end + 48, end + 5000)]


@pytest.mark.parametrize("state", [superblock.PARTIAL, superblock.WRITING])
def test_a_dump_that_was_cut_is_opened_up_to_the_last_whole_piece(
    state: int, tmp_path: Path, key: Path
) -> None:
    content = sealed_stream([BOB], pages=100)
    number = 0
    for cut in cuts():
        path = tmp_path / f"disk{cut}"
        block = target(path, content[:cut], state)
        file = checked(path, block)[1]
        whole = (len(file) - 200) // (PIECE + 16)
        if whole < 1:
            with pytest.raises(DumpError, match="cannot be decrypted"):
                collect(path, tmp_path / f"out{cut}", form="kdump", identity=key)
            continue
        done = collect(path, tmp_path / f"out{cut}", form="kdump", identity=key)
        assert done.reason
        assert whole * PIECE - 40 * 4096 < done.size <= whole * PIECE
        number += 1
    assert number > 10


def test_a_complete_dump_whose_end_is_lost_is_not_called_whole(tmp_path: Path, key: Path) -> None:
    path = tmp_path / "disk"
    content = sealed_stream([BOB], pages=100)
    block = target(path, content)
    short = copy(block)
    short.dump_size = short.written = len(content) // PIECE * PIECE
    path.write_bytes(short.encode() + path.read_bytes()[512:])
    raw = bytearray(path.read_bytes())
    raw[block.data_offset + short.written : block.data_offset + len(content)] = bytes(
        len(content) - short.written
    )
    path.write_bytes(raw)
    assert (
        "end of the encrypted dump is missing" in collect(path, tmp_path / "s", form="").detail[0]
    )
    done = collect(path, tmp_path / "out", form="kdump", identity=key)
    assert done.reason
    assert not info(path)["collected"]


def test_the_stream_s_id_is_the_dump_s(tmp_path: Path) -> None:
    block = target(tmp_path / "disk", sealed_stream([BOB]))
    assert block.dump == DUMP


def test_a_stream_cut_short_by_hand_is_marked_incomplete(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    target(path, sealed_stream([BOB], pages=100))
    file = streamreader.age_file(path.read_bytes())[0]
    stream = BOB.by_pyrage(file)
    (tmp_path / "stream").write_bytes(stream)
    assert collect(tmp_path / "stream", tmp_path / "whole", form="kdump").reason == ""
    (tmp_path / "stream").write_bytes(stream[: len(stream) // 4096 // 2 * 4096])
    done = collect(tmp_path / "stream", tmp_path / "cut", form="kdump")
    assert done.reason
    assert done.marked


def test_an_age_file_of_something_else_is_no_dump(tmp_path: Path, key: Path) -> None:
    import pyrage

    made = pyrage.encrypt(b"a letter " * 9000, [pyrage.x25519.Recipient.from_str(BOB.recipient)])
    (tmp_path / "letter.age").write_bytes(made)
    with pytest.raises(DumpError):
        collect(tmp_path / "letter.age", tmp_path / "out", form="kdump", identity=key)
    assert not (tmp_path / "out").exists()
