"""What the lab makes of a Linux guest's console while it boots."""

from types import SimpleNamespace

import pytest

from lab import LabTimeout, domain
from lab.domain import Domain


@pytest.fixture
def booting(tmp_path, monkeypatch):
    """A domain whose console holds the given text."""
    monkeypatch.setattr(domain, "STUCK_SECONDS", 0.1)
    xen = SimpleNamespace(job=tmp_path, tails=lambda: "the logs")
    guest = Domain(xen, SimpleNamespace(name="g"), 1, {})
    guest.console_log.parent.mkdir(parents=True)

    def start(text):
        guest.console_log.write_text(text)
        return guest

    return start


def test_a_guest_in_its_run_has_booted(booting):
    assert booting("[ 0.8] x86: Booting SMP configuration:\n[ 1.0] more\nlab: run\n").wait_init(9)


def test_a_guest_that_never_starts_its_second_cpu_stands_still(booting):
    assert not booting("[ 0.1] hello\n[ 0.8] x86: Booting SMP configuration:\n").wait_init(9)


def test_a_guest_that_is_slow_elsewhere_is_an_error_with_the_logs(booting):
    with pytest.raises(LabTimeout, match=r"waited 0.3 s for its init\nthe logs"):
        booting("[ 0.1] hello\n").wait_init(0.3)
