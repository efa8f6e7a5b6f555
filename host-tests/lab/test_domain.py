"""What the lab makes of a guest's console while it boots, and of xl's words about its end."""

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


@pytest.fixture
def guest(tmp_path):
    """A domain, a list of the lines that xl logged of it, and what `xl list -v` says."""

    def make(on_soft_reset, listed):
        xen = SimpleNamespace(job=tmp_path, sh=lambda script: f"Name ...\n{listed}\n")
        guest = Domain(xen, SimpleNamespace(name="g", on_soft_reset=on_soft_reset), 7, {})
        guest.xl_log.parent.mkdir(parents=True)
        guest.xl_log.write_text("Domain 7 has shut down, reason code 5 0x5\n")
        return guest

    return make


def test_a_soft_reset_that_xl_does_is_no_end(guest):
    assert not guest("soft-reset", "").ended()


def test_a_soft_reset_that_is_preserved_is_an_end(guest):
    assert guest("preserve", "").wait_end(9) == "soft-reset"


@pytest.mark.parametrize(("code", "end"), [("-", None), ("0", "poweroff"), ("3", "crash")])
def test_the_next_end_of_a_resumed_guest_is_found_by_xl_list(guest, code, end):
    domain = guest("preserve", f"g  7  256  1  ---s--  10.5  92f1-0b81  {code}  -")
    domain.before = 1
    assert domain.ended() == (end is not None)
    assert domain.reasons() == ["soft-reset"] + ([end] if end else [])
