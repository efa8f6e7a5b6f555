"""`pvdump collect --salvage` where superblock and copy differ; dumps that dd copied off."""

from copy import copy
from pathlib import Path

import pytest
from fixtures.agetools import Person
from fixtures.cutcrash import COPY, DATA, HEAD, CutCrash, Told, tell
from fixtures.sealing import sealed_stream, target
from fixtures.targets import PAGE

from pvfw import superblock, tries

BOB = Person()
KDUMP = ("--format", "kdump", "--compress", "zstd", "DISK", "OUT")
PLAIN = ("collect", *KDUMP)
SALVAGE = ("collect", "--salvage", *KDUMP)


@pytest.fixture(scope="module")
def whole() -> bytes:
    """A target with a dump."""
    return bytes(CutCrash(7).by_firmware().disk.data)


@pytest.fixture(scope="module")
def older() -> bytes:
    """A target with another dump."""
    return bytes(CutCrash(8).by_firmware().disk.data)


@pytest.fixture
def expected(whole: bytes, tmp_path: Path) -> bytes:
    told = put(tmp_path, whole, *PLAIN)
    assert (told.code, told.error) == (0, "")
    return told.file


def put(folder: Path, data: bytes, *words: object) -> Told:
    (folder / "disk").write_bytes(data)
    return tell(folder, *words)


def changed(block: superblock.Superblock, **fields: object) -> bytes:
    other = copy(block)
    for name, value in fields.items():
        setattr(other, name, value)
    return other.encode()


def test_a_counter_of_boots_changes_nothing(whole: bytes, expected: bytes, tmp_path: Path) -> None:
    made = tries.Tries()
    made.enter(b"k" * tries.KEY_SIZE)
    data = whole[: tries.AT] + made.encode() + whole[tries.AT + tries.SIZE :]
    for words, first in ((PLAIN, data[:HEAD]), (SALVAGE, data[:HEAD]), (SALVAGE, bytes(HEAD))):
        folder = tmp_path / f"{words[1]}-{any(first)}"
        folder.mkdir()
        told = put(folder, first + data[HEAD:], *words)
        assert told.file == expected
        assert (folder / "disk").read_bytes()[tries.AT : DATA] == data[tries.AT : DATA]


def joined(whole: bytes, first: bytes, second: bytes) -> bytes:
    """A target with these two superblocks."""
    return first[:HEAD] + whole[HEAD:COPY] + second[:HEAD] + whole[COPY + HEAD :]


def variants(whole: bytes, older: bytes) -> dict[str, bytes]:
    block = superblock.decode(whole)
    return {
        "complete": whole[:HEAD],
        "writing": changed(block, state=superblock.WRITING, dump_size=0, written=0, ended=0),
        "ready": superblock.Superblock(block.uuid, block.size).encode(),
        "older": older[:HEAD],
        "shorter": changed(block, dump_size=block.dump_size - PAGE, written=block.dump_size - PAGE),
    }


@pytest.mark.parametrize("other", ["writing", "ready", "older", "shorter"])
@pytest.mark.parametrize("is_first", [True, False])
def test_of_two_that_differ_the_one_that_fits_the_dump_is_used_and_named(
    whole: bytes, older: bytes, expected: bytes, other: str, is_first: bool, tmp_path: Path
) -> None:
    blocks = variants(whole, older)
    names = ("complete", other) if is_first else (other, "complete")
    told = put(tmp_path, joined(whole, *(blocks[name] for name in names)), *SALVAGE)
    assert (told.code, told.file) == (0, expected)
    used = "the superblock is used" if is_first else "the copy is used"
    lines = [line for line in told.error.splitlines() if " differ: " in line]
    assert len(lines) == 1
    assert lines[0].endswith(f" differ: {used}")
    assert "was changed while it was copied" not in told.error


def test_of_two_that_are_alike_nothing_is_said(
    whole: bytes, expected: bytes, tmp_path: Path
) -> None:
    told = put(tmp_path, whole, *SALVAGE)
    assert (told.code, told.error, told.file) == (0, "", expected)


def test_where_neither_fits_the_chunks_tell(
    whole: bytes, older: bytes, expected: bytes, tmp_path: Path
) -> None:
    blocks = variants(whole, older)
    told = put(tmp_path, joined(whole, blocks["older"], blocks["ready"]), *SALVAGE)
    assert told.code == 3
    assert " differ: neither tells of the dump that is there\n" in told.error
    assert "the superblock was not looked at" in told.error
    assert len(told.file) == len(expected)


def test_a_first_chunk_that_is_damaged_does_not_hide_which_one_fits(
    whole: bytes, older: bytes, tmp_path: Path
) -> None:
    blocks = variants(whole, older)
    data = bytearray(joined(whole, blocks["older"], blocks["complete"]))
    data[DATA + 4] ^= 1
    told = put(tmp_path, bytes(data), *SALVAGE)
    assert told.code == 3
    assert " differ: the copy is used\n" in told.error
    assert "no chunk at byte 0 of the stream" in told.error


# Copies of what stands behind the superblock, as dd makes them.


@pytest.mark.parametrize("tail", [0, 3 * PAGE])
@pytest.mark.parametrize("salvage", [[], ["--salvage"]])
def test_a_raw_copy_of_a_dump_is_collected(
    whole: bytes, expected: bytes, tail: int, salvage: list[str], tmp_path: Path
) -> None:
    size = superblock.decode(whole).dump_size
    told = put(tmp_path, whole[DATA : DATA + size + tail], "collect", *salvage, *KDUMP)
    assert (told.code, told.error) == (0, "")
    assert told.file == expected


@pytest.mark.parametrize("cut", [0, PAGE])
@pytest.mark.parametrize("salvage", [[], ["--salvage"]])
def test_a_raw_copy_of_an_encrypted_dump_is_collected_with_the_key(
    cut: int, salvage: list[str], tmp_path: Path
) -> None:
    content = sealed_stream([BOB], pages=600)
    target(tmp_path / "disk", content)
    key = ["--identity", str(BOB.file(tmp_path))]
    wanted = tell(tmp_path, "collect", *key, *KDUMP)
    assert wanted.code == 0
    told = put(tmp_path, content[: len(content) - cut], "collect", *key, *salvage, *KDUMP)
    assert told.code == (3 if cut else 0)
    assert told.file is not None
    assert cut or told.file == wanted.file


@pytest.mark.parametrize("salvage", [[], ["--salvage"]])
def test_a_raw_copy_of_an_encrypted_dump_without_a_key_is_saved_as_from_its_target(
    salvage: list[str], tmp_path: Path
) -> None:
    content = sealed_stream([BOB])
    target(tmp_path / "disk", content)
    assert tell(tmp_path, "collect", "DISK", "OUT").code == 0
    saved = tmp_path / "out.age"
    wanted = saved.read_bytes()
    assert wanted.startswith(b"age-encryption.org/v1\n")
    saved.unlink()
    assert put(tmp_path, content, "collect", *salvage, "DISK", "OUT").code == 0
    assert saved.read_bytes() == wanted


def test_a_raw_copy_without_a_key_is_refused_where_only_a_key_helps(tmp_path: Path) -> None:
    told = put(tmp_path, sealed_stream([BOB]), *PLAIN)
    assert (told.code, told.file) == (1, None)
    assert "give --identity FILE" in told.error
    assert told.error.count("\n") == 1


# Numbers that cannot be.


@pytest.mark.parametrize("value", [(1 << 64) - PAGE, 1 << 63])
@pytest.mark.parametrize("fields", [("written",), ("size", "written"), ("size", "dump_size")])
@pytest.mark.parametrize("form", ["elf", "kdump"])
def test_numbers_that_no_disk_has_are_named_as_damage(
    whole: bytes, fields: tuple[str, ...], value: int, form: str, tmp_path: Path
) -> None:
    block = superblock.decode(whole)
    block.state, block.dump_size = superblock.PARTIAL, 0
    spoilt = changed(block, **dict.fromkeys(fields, value))
    told = put(tmp_path, spoilt + whole[HEAD:COPY], "collect", "--format", form, "DISK", "OUT")
    assert (told.code, told.file) == (1, None)
    assert told.error.count("\n") == 1
    assert f"the superblock is damaged: {fields[0]} {value} is more than any disk has" in told.error
    assert f"`pvdump collect --salvage {tmp_path}/disk OUT` gets it" in told.error


@pytest.mark.parametrize("form", ["elf", "age"])
def test_a_size_that_the_disk_does_not_have_asks_for_no_room(
    whole: bytes, form: str, tmp_path: Path
) -> None:
    """A target that was larger once gives what there is, though `written` fits on no disk."""
    if form == "age":
        block = target(tmp_path / "disk", sealed_stream([BOB]))
        data = (tmp_path / "disk").read_bytes()
        words: tuple[object, ...] = ("collect", "DISK", "OUT")
    else:
        block, data = superblock.decode(whole), whole
        words = ("collect", "--format", "elf", "DISK", "OUT")
    huge = changed(
        block, state=superblock.PARTIAL, size=1 << 62, written=1 << 61, dump_size=0, reason="full"
    )
    told = put(tmp_path, huge + data[HEAD:], *words)
    assert told.code == 3
    assert "the dump needs" not in told.error
