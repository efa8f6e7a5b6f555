"""What `pvdump info` says of the counter of boots."""

import json
import struct
from pathlib import Path

import pytest
from fixtures.triestargets import target

from pvdump import cli
from pvfw import superblock, tries
from pvfw.tries import Tries

A, B = b"a" * tries.KEY_SIZE, b"b" * tries.KEY_SIZE


def entered(*keys: bytes) -> bytes:
    made = Tries()
    for key in keys:
        made.enter(key)
    return bytes(made.encode())


def told(disk: Path, data: bytes, capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    """What it says as JSON, and the line."""
    disk.write_bytes(data)
    capsys.readouterr()
    assert cli.main(["info", "--json", str(disk)]) == 0
    found = json.loads(capsys.readouterr().out)["boots"]
    assert cli.main(["info", str(disk)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("boots ")]
    return found, "".join(lines)


def test_the_counts_are_shown(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, line = told(tmp_path / "disk", target(entered(A, B, B)), capsys)
    entries = [{"key": "62" * 12, "count": 2}, {"key": "61" * 12, "count": 1}]
    assert found == {"open": True, "generation": 1, "problem": None, "entries": entries}
    assert line == "boots     counted by pvboot; did not end, by entry: 2, 1"
    _, line = told(tmp_path / "disk", target(Tries().encode()), capsys)
    assert line == "boots     counted by pvboot; all ended"


def test_a_damaged_counter_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, line = told(tmp_path / "disk", target(tries.MAGIC + b"\1" * 504), capsys)
    assert line == "boots     the counter is damaged (CRC), and counts as none"


def of_swap() -> bytes:
    raw = target(entered(A))
    raw[4086:4096] = b"SWAPSPACE2"
    return bytes(raw)


def older() -> bytes:
    raw = target(entered(A))
    block = superblock.decode(raw)
    block.version, block.format = superblock.VERSION_ELF, superblock.FORMAT_ELF
    raw[:512] = block.encode()
    return bytes(raw)


NONE = {
    "none": target(),
    "swap": of_swap(),
    "version 1": older(),
    "newer": target(entered(A).replace(tries.MAGIC + struct.pack("<I", 1), b"PVTRIED\n\2\0\0\0")),
}


@pytest.mark.parametrize("name", NONE)
def test_a_target_without_a_counter_says_nothing_of_it(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert told(tmp_path / "disk", NONE[name], capsys) == (None, "")
