"""Suspension as the embedded Xen has it: what a domain keeps and what it has lost."""

import pytest

import hw
from pvxen.control import PATIENCE, Refused, Suspension, ask
from pvxen.evtchn import XenRefuses
from pvxen.machine import Shutdown
from pvxen.sink import Memory
from pvxen.toolstack import Toolstack
from xenpv import abi
from xenpv.evtchn import EventChannels
from xenpv.gnttab import GrantTable
from xenpv.hypercall import Hypercalls
from xenpv.loop import SECOND

CALLBACK = 2 << 56 | 0xF3


@pytest.fixture
def xen():
    made = Toolstack()
    domain = made.create(1)
    domain.disk("xvdb", Memory(1 << 20))
    hw.attach(domain.machine)
    return made


def later(xen, what):
    """Do something once the domain has shut down."""

    def look():
        if xen.domain(1).shutdown_reason is not None:
            xen.clock.soon(lambda: what(1))
            xen.store.unwatch("@releaseDomain", look)

    xen.store.watch("@releaseDomain", look)


def test_nobody_who_resumes_it_ends_it(xen):
    with pytest.raises(Shutdown) as ended:
        hw.suspend()
    assert ended.value.reason == abi.SHUTDOWN_suspend


def test_the_memory_is_kept_but_for_xens_frames(xen):
    domain = xen.domain(1)
    channels = EventChannels(Hypercalls())
    port = channels.alloc_unbound(0)
    table = GrantTable(Hypercalls())
    frame = table.mapped[0].address(table.mapped[0].numbers[0])
    hw.mem(0x5000, 4)[:] = b"kept"
    later(xen, xen.migrate)
    assert hw.suspend() == 0
    assert domain.domid == 2
    assert bytes(hw.mem(0x5000, 4)) == b"kept"
    assert bytes(hw.mem(frame, 8)) == b"\xff" * 8
    assert not domain.machine.is_ram(frame // abi.PAGE_SIZE)
    assert port not in [each.number for each in xen.evtchn.of(2)]
    with pytest.raises(XenRefuses):
        xen.evtchn.port(1, port)


def test_its_nodes_ports_and_disk_are_those_of_another_domain(xen):
    domain = xen.domain(1)
    later(xen, lambda domid: xen.migrate(domid, to=7))
    hw.suspend()
    assert xen.store.read("/local/domain/7/domid") == "7"
    assert not xen.store.exists("/local/domain/1")
    assert xen.store.read("/local/domain/7/device/vbd/51728/backend").endswith("/7/51728")
    assert not domain.machine.params.get(abi.HVM_PARAM_CALLBACK_IRQ)
    assert EventChannels(Hypercalls()).shows_events()


def test_its_watchdogs_are_gone_and_the_image_arms_its_own(xen):
    hw.watchdog(30)
    later(xen, xen.migrate)
    hw.suspend()
    assert xen.domain(2).machine.watchdogs == {}
    hw.watchdog(30)
    assert len(xen.domain(2).machine.watchdogs) == 1


@pytest.mark.parametrize(("callback", "answer"), [(CALLBACK, 1), (0, 0)])
def test_the_same_domain_that_goes_on_hears_so_if_it_has_pv_drivers(xen, callback, answer):
    xen.domain(1).machine.params[abi.HVM_PARAM_CALLBACK_IRQ] = callback
    later(xen, xen.go_on)
    assert hw.suspend() == answer
    assert xen.domain(1).domid == 1


def test_a_poll_waits_by_the_new_hosts_time(xen):
    later(xen, lambda domid: xen.migrate(domid, host_time=-500 * SECOND))
    hw.suspend()
    before, at = xen.clock.now, hw.now()
    assert at < before
    hypercalls = Hypercalls()
    hypercalls.poll(hypercalls.page, 0, at + 3 * SECOND)
    assert 3 * SECOND <= xen.clock.now - before < 4 * SECOND


class TestXl:
    def test_a_guest_without_pv_drivers_is_not_asked(self, xen):
        with pytest.raises(Refused, match="PV control interface not available"):
            ask(xen.domain(1), "reboot")

    def wait(self, seconds):
        Hypercalls().sleep(seconds * SECOND)

    @pytest.fixture
    def save(self, xen):
        xen.domain(1).machine.params[abi.HVM_PARAM_CALLBACK_IRQ] = CALLBACK
        return Suspension(xen.domain(1), xen.migrate)

    def test_a_guest_that_does_not_acknowledge_has_60_s(self, xen, save):
        self.wait(PATIENCE // SECOND - 1)
        assert save.outcome is None
        self.wait(2)
        assert save.outcome == "it did not acknowledge the request, which was withdrawn"
        assert xen.store.read("/local/domain/1/control/shutdown") == ""

    def test_one_that_acknowledges_and_does_not_suspend_has_60_s_more(self, xen, save):
        self.wait(50)
        xen.store.write("/local/domain/1/control/shutdown", "")
        self.wait(55)
        assert save.outcome is None
        self.wait(10)
        assert save.outcome == "it did not suspend"

    def test_one_that_ends_otherwise_is_no_saved_one(self, xen, save):
        with pytest.raises(Shutdown):
            Hypercalls().shutdown(abi.SHUTDOWN_poweroff)
        xen.settle()
        assert save.outcome is None
        xen.store.write("/local/domain/1/control/shutdown", "")
        xen.settle()
        assert save.outcome == "it has shut down, reason 0"
