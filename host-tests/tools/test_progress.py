"""Progress reads well in a log and on a terminal, and costs nothing where nobody looks."""

import io
import re

import pytest

from tools import progress
from tools.progress import MIB, NULL, BarDisplay, LogDisplay


def log(capacity: float | None, *amounts: float, unit: str = "MiB") -> str:
    stream = io.StringIO()
    with LogDisplay(stream) as display, display.stage("dump", capacity, unit) as stage:
        for amount in amounts:
            stage.advance(amount)
    return stream.getvalue()


def test_log_has_one_line_for_a_quick_stage() -> None:
    line = log(4 * MIB, MIB, 3 * MIB)
    assert re.fullmatch(r"dump +done +0\.\d s  4\.0/4\.0 MiB  [\d.]+ MiB/s\n", line)


def test_things_are_counted_without_a_rate() -> None:
    assert log(3, 1, 1, unit="files").rstrip().endswith("2/3 files")


def test_stage_without_anything_to_count_shows_its_time() -> None:
    assert re.fullmatch(r"dump +done +0\.\d s\n", log(None))


def test_slow_stage_writes_lines_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(0, 1000, 6))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    lines = log(4 * MIB, MIB, MIB, MIB, MIB).splitlines()
    assert len(lines) >= 2
    assert " ... " in lines[0]
    assert " done " in lines[-1]


def test_failing_stage_says_so_and_lets_the_error_through() -> None:
    stream = io.StringIO()

    def boot() -> None:
        with LogDisplay(stream).stage("boot") as stage:
            stage.note("waiting for dom0")
            raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        boot()
    assert "FAILED" in stream.getvalue()
    assert "waiting for dom0" in stream.getvalue()


def test_terminal_keeps_the_line_of_a_stage() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    with progress.display(stream) as display:
        assert isinstance(display, BarDisplay)
        with display.stage("fetch", 2 * MIB) as stage:
            stage.expect(MIB)
            stage.advance(MIB)
            stage.note("[amd64]")
        with display.stage("boot"):
            pass
    assert "fetch" in stream.getvalue()
    assert "1.0/1.0 MiB" in stream.getvalue()
    assert "[amd64]" in stream.getvalue()


def test_nobody_looking_costs_no_output(capsys: pytest.CaptureFixture[str]) -> None:
    with NULL.stage("dump", 10) as stage:
        stage.advance(3)
        stage.note("here")
    assert capsys.readouterr().out == ""
