"""What `pvdump collect` says in a guest: each line once, and all that a person needs."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.agetools import Person
from fixtures.sealing import sealed_stream, target
from fixtures.targets import PAGE, make, vmcore

from pvdump.guest import dumps, gather, reports
from pvdump.guest.gather import Guest
from pvfw import superblock

CAUSE = "sysrq: Trigger a crash; CPU: 1 UID: 0 PID: 97 Comm: sh"
READY = "is ready for the next dump, of up to"
Said = Callable[..., tuple[list[str], list[str]]]


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    return tmp_path / "disk"


@pytest.fixture
def said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Said:
    """Runs `pvdump collect`; gives the lines of standard output and of standard error."""
    # Reports take a process; test_reports.py has them.
    monkeypatch.setattr(reports, "write", lambda folder, vmcore: ["no report.txt: it failed"])

    def run(disk: Path, keep: int = 5, keep_free: int = 0) -> tuple[list[str], list[str]]:
        guest = Guest(tmp_path / "crash", keep, keep_free, tmp_path / "hooks", tmp_path / "root")
        gather.gather(guest, [disk], False)
        captured = capsys.readouterr()
        out, error = captured.out.splitlines(), captured.err.splitlines()
        assert len({*out, *error}) == len(out) + len(error)
        return out, [re.sub("^pvdump collect: ", "", line) for line in error]

    return run


def only(disk: Path) -> dumps.Dump:
    (dump,) = dumps.found(disk.with_name("crash"))
    return dump


def test_a_dump_is_one_line_then_why_then_what_is_next(
    disk: Path, dumped: bytes, said: Said
) -> None:
    disk.write_bytes(dumped)
    out, error = said(disk)
    size = superblock.decode(dumped).dump_size / (1 << 20)
    room = superblock.decode(dumped).room() / (1 << 20)
    assert out == [
        f"{only(disk).path}: the whole dump of {disk}, {size:.1f} MiB, with log.txt",
        f"why the kernel died: {CAUSE}",
        f"{disk} {READY} {room:.1f} MiB; `pvdump arm` arms it, which each boot does by itself",
    ]
    assert error == ["no report.txt: it failed"]


def test_what_was_cut_by_the_power_is_said_so(disk: Path, said: Said) -> None:
    make(disk, superblock.WRITING, vmcore(), 50 * PAGE)
    out, error = said(disk)
    assert out[0].startswith(f"{only(disk).path}: part of the dump of {disk}, 0.2 MiB")
    assert out[1] == "why the kernel died is not known"
    assert error[-1] == f"part of the dump is missing: {gather.CUT}"


def test_damage_is_one_line_and_a_second_run_repeats_none_of_it(
    disk: Path, dumped: bytes, said: Said
) -> None:
    data = bytearray(dumped)
    for at in range(40, 600, 40):
        begin = superblock.DATA_OFFSET + at * PAGE
        data[begin : begin + PAGE] = bytes(range(256)) * 16
    disk.write_bytes(data)
    out, error = said(disk)
    dump = only(disk)
    number = len(dump.facts.missing) - 2
    (line,) = [line for line in error if line.startswith("part of the dump is missing: ")]
    assert line.endswith(f"; {number} more in {dump.path}/pvdump.json")
    assert out[0].startswith(f"{dump.path}: part of the dump of {disk}, ")
    assert error[-1].endswith(f"If that is enough: `pvdump prepare --force {disk}`")
    again, still = said(disk)
    assert again == [f"{dump.path} has the dump of {disk} already"]
    assert still == error[-1:]


def test_an_encrypted_dump_is_told_with_the_line_that_opens_it(disk: Path, said: Said) -> None:
    target(disk, sealed_stream([Person()]))
    out, error = said(disk)
    path = only(disk).path
    assert out[0].startswith(f"{path}: the whole dump of {disk}, ")
    assert f"`pvdump collect --identity KEY {path}/vmcore.age NEW` opens it" in out[1]
    assert (READY in out[2], len(out), error) == (True, 3, [])


def test_what_was_removed_is_told_with_the_setting_that_did_it(
    disk: Path, dumped: bytes, said: Said
) -> None:
    make(disk, superblock.COMPLETE, vmcore())
    said(disk)
    first = only(disk)
    disk.write_bytes(dumped)
    out, _ = said(disk, keep=1)
    only(disk)
    gone = "was removed: keep: 1 in the settings keeps no more dumps"
    assert out[-1].startswith("the dump ")
    assert out[-1].endswith(gone)
    assert not first.path.exists() or f"({CAUSE})" in out[-1]


def test_too_little_room_says_where_the_dump_is(disk: Path, dumped: bytes, said: Said) -> None:
    disk.write_bytes(dumped)
    out, (line,) = said(disk, keep_free=1 << 60)
    assert out == []
    assert "the dump stays on its target; make room, then `pvdump collect`" in line


def test_a_size_that_the_target_does_not_have_asks_for_no_room(
    disk: Path, dumped: bytes, said: Said
) -> None:
    block = superblock.decode(dumped)
    block.state, block.size, block.dump_size = superblock.PARTIAL, 1 << 62, 0
    block.written = 1 << 61
    disk.write_bytes(block.encode() + dumped[len(block.encode()) :])
    out, _ = said(disk)
    assert out[0].startswith(f"{only(disk).path}: part of the dump of {disk}, ")
