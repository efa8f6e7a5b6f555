"""The output of the commands for dumps, and their exit codes."""

import json
from pathlib import Path

import pytest
from fixtures.targets import MIB, PAGE, SIZE, make, vmcore

from pvdump import arguments, cli
from pvfw import superblock

DATA = vmcore()


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


def test_prepare_collect_and_info_end_with_zero(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["prepare", str(disk), "--size", "8M"]) == 0
    assert "7.0 MiB" in capsys.readouterr().out
    make(disk, superblock.COMPLETE, DATA)
    assert cli.main(["collect", str(disk), str(disk.with_name("vmcore"))]) == 0
    assert "MiB/s" in capsys.readouterr().out
    assert cli.main(["info", str(disk)]) == 0
    assert "complete" in capsys.readouterr().out


def test_partial_dump_ends_with_three_and_says_why(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(disk, superblock.PARTIAL, DATA, 50 * PAGE)
    assert cli.main(["collect", str(disk), str(disk.with_name("vmcore"))]) == 3
    assert "I/O error" in capsys.readouterr().err


def test_refusal_is_one_line_on_standard_error(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    disk.write_bytes(bytes(SIZE))
    assert cli.main(["info", str(disk)]) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"pvdump info: {disk}: no pvdump superblock")
    assert captured.err.count("\n") == 1


def test_target_is_made_ready_again_when_its_dump_was_collected(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make(disk, superblock.COMPLETE, DATA)
    assert cli.main(["prepare", "--again", str(disk)]) == 1
    assert "not collected" in capsys.readouterr().err
    assert cli.main(["collect", str(disk), str(disk.with_name("vmcore"))]) == 0
    assert cli.main(["prepare", "--again", str(disk)]) == 0
    assert "is ready" in capsys.readouterr().out


def test_lost_superblock_is_salvaged(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(disk, superblock.COMPLETE, DATA)
    with disk.open("r+b") as stream:
        stream.write(bytes(512))
    assert cli.main(["collect", "--salvage", str(disk), str(disk.with_name("vmcore"))]) == 3
    assert "superblock was not looked at" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["prepare", "collect", "info"])
def test_missing_disk_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    more = [str(tmp_path / "out")] if command == "collect" else []
    assert cli.main([command, str(tmp_path / "none"), *more]) == 1
    assert str(tmp_path / "none") in capsys.readouterr().err


def test_info_tells_a_person_everything_that_is_known(
    disk: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    block = make(disk, superblock.PARTIAL, DATA, 256 * PAGE)
    cli.main(["info", str(disk)])
    lines = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert lines["state"] == "partial: the dump ended early"
    assert lines["uuid"] == "00010203-0405-0607-0809-0a0b0c0d0e0f"
    assert lines["crashed"] == "on vCPU 1"
    assert lines["written"] == f"1.0 of {len(DATA) / MIB:.1f} MiB"
    assert lines["ended"] == "2023-11-14T22:13:24+00:00 (4 s)"
    assert lines["reason"] == block.reason
    assert lines["collected"] == "not yet"


def test_info_of_a_ready_target_has_no_dump(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(disk, superblock.READY, b"")
    cli.main(["info", str(disk)])
    out = capsys.readouterr().out
    assert "waiting for a crash" in out
    assert "vCPU" not in out


def test_info_json_has_sizes_in_bytes(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(disk, superblock.COMPLETE, DATA)
    cli.main(["info", "--json", str(disk)])
    facts = json.loads(capsys.readouterr().out)
    assert facts["state"] == "complete"
    assert facts["dump_size"] == facts["written"] == len(DATA)
    assert facts["size"] == facts["disk_size"] == SIZE
    assert (facts["release"], facts["crash_vcpu"], facts["reason"]) == ("6.1.0-test", 1, None)


def test_unknown_vcpu_is_null(disk: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make(disk, superblock.READY, b"")
    cli.main(["info", "--json", str(disk)])
    assert json.loads(capsys.readouterr().out)["crash_vcpu"] is None


@pytest.mark.parametrize(
    ("text", "size"), [("4096", 4096), ("512k", 512 << 10), ("8M", 8 * MIB), ("1G", 1 << 30)]
)
def test_size_takes_a_unit(text: str, size: int) -> None:
    assert arguments.size(text) == size
