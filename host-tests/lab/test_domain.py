"""What the lab makes of a guest's console while it boots, and of what dom0 notes of its end."""

import re
from types import SimpleNamespace

import pytest

from lab import LabTimeout, domain
from lab.domain import Domain
from lab.installed import Installed


@pytest.fixture
def booting(tmp_path, monkeypatch):
    """A domain whose console holds the given text."""
    monkeypatch.setattr(domain, "STUCK_SECONDS", 0.1)
    interrupts = []
    xen = SimpleNamespace(
        job=tmp_path,
        tails=lambda: "the logs",
        interrupts=interrupts,
        interrupt=lambda: interrupts.append(None),
    )
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


def test_a_guest_that_is_waited_for_gets_the_machine_an_interrupt(booting):
    guest = booting("[ 0.1] hello\n")
    for wait in (guest.wait_init, lambda timeout: guest.wait_console("^never", timeout)):
        guest._interrupted = 0.0
        guest.xen.interrupts.clear()
        with pytest.raises(LabTimeout):
            wait(0.1)
        assert guest.xen.interrupts


def test_a_message_of_the_kernel_does_not_hide_the_line_that_it_interrupts(booting):
    message = "[    7.518071] clocksource: delay\n\n[  334.527460] more"
    guest = booting(f"lab: files 0{message}\nlab: run[ 8.5] x\n")
    assert guest.wait_console("^lab: files 0$", 0.1)
    assert guest.wait_console(f"^{re.escape(message)}$", 0.1)
    assert "run[ 8.5] x" in guest.console()


def test_an_installed_guest_is_waited_for_on_a_terminal_that_systemd_sets_up(tmp_path):
    xen = SimpleNamespace(job=tmp_path, tails=lambda: "", interrupt=lambda: None)
    guest = Installed(xen, SimpleNamespace(name="g"), 1, {})
    guest.console_log.parent.mkdir(parents=True)
    begin = "\x1b[!p\x1b]104\x07\x1b[?7h"
    guest.console_log.write_text(f"{begin}lab: agent 9ce8227f\n\x1b[1;31mdone\x1b[0m\n")
    assert guest.wait_console(r"^lab: agent \S+\ndone$", 0.1)


@pytest.fixture
def guest(tmp_path):
    """Gives domain 7; dom0 has noted these ends of domains."""

    def make(on_soft_reset, ends):
        xen = SimpleNamespace(job=tmp_path, interrupt=lambda: None)
        guest = Domain(xen, SimpleNamespace(name="g", on_soft_reset=on_soft_reset), 7, {})
        (tmp_path / "log").mkdir()
        (tmp_path / "log/ends").write_text("".join(f"{domid} {code}\n" for domid, code in ends))
        return guest

    return make


def test_a_soft_reset_that_xl_does_is_no_end(guest):
    assert not guest("soft-reset", [(7, 5)]).ended()


def test_a_soft_reset_that_is_preserved_is_an_end(guest):
    assert guest("preserve", [(7, 5)]).wait_end(9) == "soft-reset"


def test_another_domain_s_end_is_not_its_own(guest):
    assert not guest("preserve", [(77, 0), (17, 3)]).ended()


@pytest.mark.parametrize(("code", "end"), [(0, "poweroff"), (3, "crash"), (4, "watchdog")])
def test_a_resumed_guest_has_ended_when_it_has_ended_again(guest, code, end):
    domain = guest("preserve", [(7, 5)])
    domain.before = 1
    assert not domain.ended()
    with (domain.xen.job / "log/ends").open("a") as ends:
        ends.write(f"7 {code}\n")
    assert domain.wait_end(9) == end
    assert domain.reasons() == ["soft-reset", end]
