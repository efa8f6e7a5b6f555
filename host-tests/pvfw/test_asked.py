"""A guest that dumps and is asked for something: it says so, acknowledges nothing, and dumps on."""

import pytest
from fixtures.crashedguest import Crash
from fixtures.smallcrash import SmallCrash

import hw
from pvfw import superblock
from pvxen.control import PATIENCE, Suspension
from pvxen.ringfaults import At, LostReply
from pvxen.scenario import Scenario
from xenpv import abi
from xenpv.loop import SECOND

SERVERS = [abi.XENSTORE_SERVER_FEATURE_RECONNECTION, 0]


def asked(crash, delay, what):
    """Have something done when the guest has run for a while."""
    crash.guest.xen.clock.after(delay, what)


@pytest.mark.parametrize("features", SERVERS)
@pytest.mark.parametrize("command", ["poweroff", "suspend"])
def test_a_request_is_told_and_not_acknowledged(features, command, capsys):
    crash = Crash(guest={"server_features": features}, latency=20_000_000)
    node = f"{crash.guest.home}/control/shutdown"
    asked(crash, SECOND // 2, lambda: crash.guest.store.write(node, command))
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE
    assert crash.guest.store.read(node) == command
    told = f"pvdump: the toolstack asks for {command}: not now, the dump goes on\n"
    assert capsys.readouterr().out.count(told) == 1


@pytest.mark.parametrize("features", SERVERS)
def test_a_save_of_a_guest_that_dumps_is_given_up_and_the_dump_is_whole(features, capsys):
    # A dump that takes longer than xl waits.
    crash = Crash(guest={"server_features": features}, latency=4 * SECOND)
    # As the crashed Linux left it: a guest with PV drivers.
    crash.guest.machine.params[abi.HVM_PARAM_CALLBACK_IRQ] = 2 << 56 | 0xF3
    saves = []

    def save():
        saves.append(Suspension(crash.guest, crash.guest.xen.migrate))

    asked(crash, SECOND, save)
    began = crash.guest.machine.now()
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.guest.machine.now() - began > PATIENCE
    assert saves[0].outcome == "it did not acknowledge the request, which was withdrawn"
    assert crash.superblock().state == superblock.COMPLETE
    assert crash.vmcore()
    assert "asks for suspend: not now" in capsys.readouterr().out


def test_a_server_that_dies_while_it_listens_does_not_end_the_dump(capsys):
    crash = Crash(latency=20_000_000)

    def die():
        crash.guest.ring.deaf = True
        # An index that cannot be: the connection is over for both sides.
        prod = crash.guest.ring.page + abi.XENSTORE_RING_RSP_PROD
        hw.wr32(prod, hw.rd32(prod) + 0x10000)

    asked(crash, SECOND // 2, die)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE


def test_garbage_is_told_as_text(capsys):
    crash = Crash(latency=20_000_000)
    node = f"{crash.guest.home}/control/shutdown"
    asked(crash, SECOND // 2, lambda: crash.guest.store.write(node, "\x1b[2J" * 100))
    assert crash.run() == abi.SHUTDOWN_poweroff
    out = capsys.readouterr().out
    assert "asks for ?[2J?[2J?[2J?[2J: not now" in out
    assert "\x1b" not in out


def test_a_guest_that_may_not_watch_its_node_is_dumped():
    crash = Crash()
    crash.guest.store.rm(f"{crash.guest.home}/control")
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE


@pytest.mark.parametrize("packets", [0, 1, 2])
def test_an_answer_that_is_lost_while_it_begins_costs_seconds_and_no_dump(packets):
    lost = LostReply(at=At(packets=packets))
    crash = SmallCrash(Scenario("lost", "right", store=(lost,)))
    began = crash.guest.machine.clock.now
    outcome = crash.by_firmware()
    assert (outcome.state, outcome.reported) == (superblock.COMPLETE, ("complete", ""))
    assert 5 * SECOND <= crash.guest.machine.clock.now - began < 11 * SECOND
