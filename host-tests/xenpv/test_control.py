"""Requests of the toolstack on the embedded Xen: taken, acknowledged, done; and wrong ones."""

from pathlib import Path

import pytest
import yaml
from fixtures.suspended import SERVERS, SuspendedGuest

from pvxen.control import PATIENCE, Refused, ask
from xenpv import abi
from xenpv.control import Control
from xenpv.loop import SECOND

VECTORS = yaml.safe_load(
    (Path(__file__).resolve().parents[1] / "vectors/control.yaml").read_text(encoding="utf-8")
)
SHUTDOWN = "control/shutdown"
SYSRQ = "control/sysrq"


class Listening:
    """A guest with a Control. options: of SuspendedGuest."""

    def __init__(self, **options):
        self.said = []
        self.guest = SuspendedGuest(**options)
        self.control = Control(self.guest.guest, self.said.append)
        self.domain = self.guest.domain

    def write(self, node, value):
        self.domain.store.write(f"{self.domain.home}/{node}", value)

    def read(self, node):
        path = f"{self.domain.home}/{node}"
        return self.domain.store.read(path) if self.domain.store.exists(path) else None

    def run(self, work):
        """Run work() beside Control.run()."""

        async def main():
            task = self.guest.loop.spawn(self.control.run())
            await self.guest.loop.sleep(SECOND)
            await work()
            task.cancel()

        self.guest.run(main)

    def end(self, work):
        """Run work() and then wait for the domain's end. Returns the reason."""

        async def main():
            await work()
            await self.guest.loop.sleep(60 * SECOND)

        with pytest.raises(BaseException, match="the domain shut down") as ended:
            self.run(main)
        return ended.value.reason

    def asked(self, node, value):
        """Have the toolstack write a value. Returns the reason of the domain's end."""

        async def work():
            self.write(node, value)

        return self.end(work)


@pytest.fixture(params=SERVERS)
def listening(request):
    return Listening(server_features=request.param)


REASONS = {
    "poweroff": abi.SHUTDOWN_poweroff,
    "reboot": abi.SHUTDOWN_reboot,
    "crash": abi.SHUTDOWN_crash,
}


@pytest.mark.parametrize("case", VECTORS["requests"], ids=str)
def test_the_domain_ends_as_asked_and_the_request_is_acknowledged(listening, case):
    assert listening.asked(case["node"], case["value"]) == REASONS[case["ends"]]
    assert listening.read(case["node"]) == ""


@pytest.mark.parametrize("command", ["poweroff", "reboot"])
def test_before_the_end_disks_are_closed_and_the_store_is_handed_back(listening, command):
    guest = listening.guest

    async def work():
        disk = await guest.connected()
        guest.fill(0x200, 1, 1)
        await disk.write(0, 0x200, 8)
        listening.write(SHUTDOWN, command)

    listening.end(work)
    assert guest.disk.state in (abi.XenbusStateClosed, abi.XenbusStateInitWait)
    assert guest.disk_content(8) == guest.content(0x200, 1)
    assert guest.domain.machine.gnttab.active == {}
    assert not guest.domain.ring.connection.watches


def test_features_are_announced_as_far_as_a_guest_may(listening):
    async def work():
        for name in ("poweroff", "reboot", "suspend"):
            assert listening.read(f"control/feature-{name}") == "1"
        assert listening.read("control/feature-halt") is None

    listening.run(work)
    refused = [line for line in listening.said if "feature-halt" in line]
    assert refused == ["not announced: xenstore write control/feature-halt: EACCES"]


def test_what_is_refused_is_told_once_however_often_it_is_announced(listening):
    async def work():
        for _ in range(3):
            suspension = listening.guest.suspension(listening.guest.xen.migrate)
            await listening.guest.loop.sleep(SECOND)
            assert suspension.outcome == "suspended"
            assert listening.read("control/feature-suspend") == "1"

    listening.run(work)
    assert len([line for line in listening.said if "feature-halt" in line]) == 1


def test_xl_asks_only_a_guest_that_has_set_its_callback():
    listening = Listening()
    domain = listening.domain
    with pytest.raises(Refused):
        ask(domain, "poweroff")

    async def work():
        ask(domain, "poweroff")

    assert listening.end(work) == abi.SHUTDOWN_poweroff


def test_after_close_xl_asks_no_more(listening):
    guest = listening.guest

    async def work():
        await listening.control.open()
        await listening.control.close()
        with pytest.raises(Refused):
            ask(listening.domain, "poweroff")
        assert listening.read("control/feature-poweroff") == ""

    guest.run(work)


def test_a_request_made_before_anyone_listens_is_taken(listening):
    listening.write(SHUTDOWN, "reboot")
    assert listening.asked("control/else", "") == abi.SHUTDOWN_reboot


def test_a_mode_decides_itself(listening):
    guest, seen = listening.guest, []

    async def decide(request):
        seen.append((request.command, request.key))
        return request.command != "reboot"

    async def main():
        guest.loop.spawn(listening.control.run(decide))
        for node, value in ((SHUTDOWN, "poweroff"), (SYSRQ, "h"), (SHUTDOWN, "reboot")):
            await guest.loop.sleep(SECOND)
            listening.write(node, value)
        await guest.loop.sleep(SECOND)

    assert guest.end(main) == abi.SHUTDOWN_reboot
    assert seen == [("poweroff", ""), ("sysrq", "h"), ("reboot", "")]


class TestWrongRequests:
    def test_the_same_twice_is_done_once(self, listening):
        guest, seen = listening.guest, []

        async def decide(request):
            seen.append(request.command)
            await guest.loop.sleep(SECOND)
            return True

        async def main():
            guest.loop.spawn(listening.control.run(decide))
            await guest.loop.sleep(SECOND)
            listening.write(SHUTDOWN, "poweroff")
            listening.write(SHUTDOWN, "poweroff")
            await guest.loop.sleep(5 * SECOND)
            assert seen == ["poweroff"]
            listening.write(SHUTDOWN, "poweroff")
            await guest.loop.sleep(5 * SECOND)
            assert seen == ["poweroff", "poweroff"]

        guest.run(main)

    @pytest.mark.parametrize("case", VECTORS["left"], ids=str)
    def test_what_is_no_request_stays_and_is_told_once(self, listening, case):
        node, value = case["node"], case["value"]

        async def work():
            for _ in range(3):
                listening.write(node, value)
                await listening.guest.loop.sleep(SECOND)
            assert listening.read(node) == value

        listening.run(work)
        told = [line for line in listening.said if "is no request" in line]
        assert told == [f"{node}: {case['told']} is no request, ignored"]
        assert listening.domain.shutdown_reason is None

    def test_many_different_ones_take_no_memory(self, listening):
        async def work():
            for i in range(300):
                listening.write(SHUTDOWN, f"garbage {i}")
                await listening.guest.loop.sleep(SECOND // 100)

        listening.run(work)
        assert len(listening.control._said) <= 8

    @pytest.mark.parametrize("case", VECTORS["acknowledged"], ids=str)
    def test_a_key_without_meaning_is_told_and_acknowledged(self, listening, case):
        async def work():
            listening.write(case["node"], case["value"])
            await listening.guest.loop.sleep(SECOND)
            assert listening.read(case["node"]) == ""

        listening.run(work)
        assert case["told"] in listening.said
        assert listening.domain.shutdown_reason is None

    @pytest.mark.parametrize("node", [SHUTDOWN, SYSRQ, "control"])
    def test_a_node_that_is_removed_and_comes_back_is_heard(self, listening, node):
        domain = listening.domain

        async def work():
            domain.store.rm(f"{domain.home}/{node}")
            await listening.guest.loop.sleep(SECOND)
            domain.store.write(f"{domain.home}/{SHUTDOWN}", "", f"n{domain.domid}")
            await listening.guest.loop.sleep(SECOND)
            listening.write(SHUTDOWN, "reboot")

        assert listening.end(work) == abi.SHUTDOWN_reboot

    def test_a_request_that_cannot_be_acknowledged_is_not_done(self, listening):
        domain = listening.domain
        domain.store.write(f"{domain.home}/{SHUTDOWN}", "", "n0 r1")

        async def work():
            listening.write(SHUTDOWN, "reboot")
            await listening.guest.loop.sleep(60 * SECOND)

        listening.run(work)
        assert domain.shutdown_reason is None
        told = [line for line in listening.said if "is not heard" in line]
        assert told == ["the toolstack is not heard: xenstore write control/shutdown: EACCES"]

    def test_a_request_that_was_withdrawn_is_not_taken(self, listening):
        guest = listening.guest
        find = guest.store.find

        async def late(path):
            value = await find(path)
            if path == SHUTDOWN and value:
                listening.write(SHUTDOWN, "")
            return value

        guest.store.find = late

        async def work():
            listening.write(SHUTDOWN, "poweroff")
            await guest.loop.sleep(5 * SECOND)

        listening.run(work)
        assert listening.domain.shutdown_reason is None


class TestServersThatEnd:
    def test_a_dead_server_is_told_once_and_the_guest_goes_on(self, listening):
        guest = listening.guest

        async def work():
            listening.domain.ring.deaf = True
            listening.write(SHUTDOWN, "reboot")
            await guest.loop.sleep(120 * SECOND)

        listening.run(work)
        assert listening.domain.shutdown_reason is None

    def test_a_server_that_comes_back_is_heard_again(self, listening):
        guest, domain = listening.guest, listening.domain

        async def work():
            domain.ring._break(Exception("the store's domain ended"))
            await guest.loop.sleep(30 * SECOND)
            port = domain.machine.params[abi.HVM_PARAM_STORE_EVTCHN]
            domain.ring.close()
            domain.ring = domain.introduce(len(domain.machine.ram) // 4096 - 1, port)
            await guest.loop.sleep(60 * SECOND)
            listening.write(SHUTDOWN, "reboot")

        assert listening.end(work) == abi.SHUTDOWN_reboot

    def test_one_that_dies_while_the_guest_is_suspended_is_waited_for(self, listening):
        guest = listening.guest

        def migrate(domid):
            guest.xen.migrate(domid)
            guest.domain.ring.deaf = True
            guest.xen.clock.after(40 * SECOND, wake)

        def wake():
            guest.domain.ring.deaf = False
            guest.xen.clock.soon(guest.domain.ring.step)

        async def work():
            disk = await guest.connected()
            guest.suspension(migrate)
            await guest.loop.sleep(90 * SECOND)
            await disk.write(0, 0x200, 8)
            await disk.close()
            listening.write(SHUTDOWN, "reboot")

        assert listening.end(work) == abi.SHUTDOWN_reboot
        assert "resumed" in listening.said

    def test_a_backend_that_does_not_close_does_not_hold_up_a_suspension(self):
        listening = Listening()
        guest = listening.guest
        guest.disk.faults.stuck_closing = True

        async def work():
            await guest.connected()
            suspension = guest.suspension(guest.xen.migrate)
            await guest.loop.sleep(PATIENCE)
            assert suspension.outcome == "suspended"

        listening.run(work)
