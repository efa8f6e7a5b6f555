"""The progress line."""

import io
import sys

import pytest

from pvdump.dump import meter


class HungUp(io.StringIO):
    """A terminal that has gone."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(5, "Input/output error")


def test_work_goes_on_when_its_terminal_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", HungUp())
    monkeypatch.setattr(meter, "EVERY", -1)
    with meter.Meter() as progress:
        progress.expect(2)
        progress.advance(1)
        progress.advance(1)
    assert progress.done == progress.total


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_on_a_terminal_a_bar_grows_and_is_removed_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(meter, "EVERY", -1)
    with meter.Meter() as progress:
        progress.expect(4 << 20)
        for _ in range(2):
            progress.advance(1 << 20)
    first, second, end = terminal.getvalue().split("\r\033[K")[1:]
    assert first.startswith(f"[{'#' * 5}{' ' * 15}] 1.0/4.0 MiB")
    assert second.startswith(f"[{'#' * 10}{' ' * 10}] 2.0/4.0 MiB")
    assert end == ""
