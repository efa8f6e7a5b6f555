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
