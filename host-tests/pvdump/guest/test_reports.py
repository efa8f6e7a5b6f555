"""The reports in a dump's folder: made by `pvdump report`; one that fails costs only itself."""

from pathlib import Path

import pytest
from fixtures.crashedguest import GOOD, Crash
from fixtures.dyingkernel import OOPS

from pvdump.guest import dumps, gather, reports
from pvdump.guest.gather import Guest


def test_a_dump_gets_both_reports_which_only_its_owner_reads(tmp_path: Path) -> None:
    crash = Crash(GOOD)
    crash.die(texts=OOPS)
    crash.run()
    (tmp_path / "disk").write_bytes(crash.disk.data)
    guest = Guest(tmp_path / "crash", 5, 0, tmp_path / "hooks", tmp_path / "root")
    assert gather.gather(guest, [tmp_path / "disk"], False) == 0
    (dump,) = dumps.found(guest.directory)
    text, page = dump.path / reports.TEXT, dump.path / reports.PAGE
    assert "sysrq: Trigger a crash" in text.read_text()
    assert "sysrq: Trigger a crash" in page.read_text()
    assert {path.stat().st_mode & 0o777 for path in (text, page)} == {0o600}
    assert sorted(path.name for path in dump.path.iterdir()) == [
        "log.txt",
        "pvdump.json",
        "report.html",
        "report.txt",
        "vmcore",
    ]


def test_a_report_that_fails_is_none_and_its_last_line_is_told(tmp_path: Path) -> None:
    (tmp_path / "vmcore").write_bytes(b"no dump")
    lines = reports.write(tmp_path, "vmcore")
    assert [line.split(":")[0] for line in lines] == ["no report.txt", "no report.html"]
    assert all("pvdump report: " in line for line in lines)
    assert [path.name for path in tmp_path.iterdir()] == ["vmcore"]


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os; os.kill(os.getpid(), 11)  # {path}", "`pvdump report` ended with -11"),
        ("import time; print(1, flush=True); time.sleep(60)  # {path}", "it took more than 1 s"),
    ],
    ids=["crashes", "hangs"],
)
def test_a_report_that_crashes_or_hangs_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str, why: str
) -> None:
    monkeypatch.setattr(reports, "PROGRAM", program)
    assert reports.write(tmp_path, "vmcore", 1) == [
        f"no report.txt: {why}",
        f"no report.html: {why}",
    ]
    assert list(tmp_path.iterdir()) == []
