"""Why the kernel died, and a dump of the log alone, as `pvdump collect` and `info` show them."""

import json
import struct
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from fixtures.crashedguest import GOOD, Crash
from fixtures.dyingkernel import OOPS

from pvdump import cli
from pvfw import superblock

CAUSE = "sysrq: Trigger a crash; CPU: 1 UID: 0 PID: 97 Comm: sh"
INCOMPLETE = 8


def disk_of(folder: Path, line: str = "", texts: tuple[bytes, ...] = OOPS) -> Path:
    """Make the target of a guest whose kernel died."""
    crash = Crash(f"{GOOD} {line}")
    crash.die(texts=texts)
    crash.run()
    path = folder / "disk"
    path.write_bytes(crash.disk.data)
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    return disk_of(tmp_path)


@pytest.fixture
def log_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Path:
    path = disk_of(tmp_path, "pvdump.level=log")
    capfd.readouterr()
    return path


def collect(*words: object) -> int:
    return cli.main(["collect", *map(str, words)])


def test_info_says_why_the_kernel_died(whole: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    assert cli.main(["info", str(whole)]) == 0
    assert f"cause     {CAUSE}\n" in capfd.readouterr().out
    assert cli.main(["info", "--json", str(whole)]) == 0
    assert json.loads(capfd.readouterr().out)["cause"] == CAUSE


@pytest.mark.parametrize("damage", ["header", "text", "ready", "no cause"])
def test_a_cause_that_cannot_be_had_is_none(
    damage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    disk = disk_of(tmp_path, texts=(b"all is well",) if damage == "no cause" else OOPS)
    raw = bytearray(disk.read_bytes())
    block = superblock.decode(raw)
    raw[block.data_offset + {"header": 9, "text": 60}.get(damage, 4095)] ^= damage in (
        "header",
        "text",
    )
    if damage == "ready":
        block.state = superblock.READY
        raw[:512] = block.encode()
    disk.write_bytes(raw)
    capfd.readouterr()
    assert cli.main(["info", "--json", str(disk)]) == 0
    assert json.loads(capfd.readouterr().out)["cause"] is None


def test_info_of_a_dump_that_is_being_written_says_it_too(
    whole: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(whole.read_bytes())
    block = superblock.decode(raw)
    block.state, block.dump_size, block.written = superblock.WRITING, 0, 1 << 20
    raw[:512] = block.encode()
    whole.write_bytes(raw)
    capfd.readouterr()
    assert cli.main(["info", str(whole)]) == 0
    assert CAUSE in capfd.readouterr().out


def test_collect_says_why_the_kernel_died(
    whole: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    capfd.readouterr()
    assert collect(whole, tmp_path / "out") == 0
    assert f"why the kernel died: {CAUSE}\n" in capfd.readouterr().out
    assert collect(whole, "-") == 0
    assert f"why the kernel died: {CAUSE}\n" in capfd.readouterr().err


@pytest.mark.parametrize("form", ["kdump", "elf"])
def test_a_dump_of_the_log_alone_is_all_that_was_asked_for_and_an_incomplete_file(
    form: str, log_alone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert collect(log_alone, out, "--format", form) == 0
    assert "log, notes and stacks alone, as the dump's level says\n" in capfd.readouterr().out
    raw = out.read_bytes()
    if form == "elf":
        with out.open("rb") as stream:
            assert ELFFile(stream).header["e_flags"] & 1
    else:
        assert struct.unpack_from("<I", raw, 424)[0] & INCOMPLETE
    assert b"stack" in raw


def test_a_whole_dump_is_no_incomplete_file(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert collect(whole, out) == 0
    assert not struct.unpack_from("<I", out.read_bytes(), 424)[0] & INCOMPLETE


def test_the_log_of_a_dump_of_the_log_alone_is_whole(
    log_alone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert collect("--log", log_alone, tmp_path / "log") == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert lines[1].endswith("sysrq: Trigger a crash")
    assert len(lines) == len(OOPS) + 1


def test_a_dump_of_the_log_alone_that_ended_early_is_incomplete(
    log_alone: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = bytearray(log_alone.read_bytes())
    block = superblock.decode(raw)
    block.state, block.written, block.dump_size = superblock.PARTIAL, 4096 * 3, 0
    raw[:512] = block.encode()
    raw[block.data_offset + 4096 * 3 :] = bytes(len(raw) - block.data_offset - 4096 * 3)
    log_alone.write_bytes(raw)
    assert collect(log_alone, tmp_path / "out") == 3
