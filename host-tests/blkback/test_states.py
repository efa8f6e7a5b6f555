"""The device and the front end's states: in order, skipped, at the wrong time, and gone."""

import itertools

import pytest
from blkback.front import (
    CLOSED,
    CLOSING,
    CONNECTED,
    ERROR,
    FLUSH,
    INIT_WAIT,
    INITIALISED,
    INITIALISING,
    OKAY,
    PAGE,
    READ,
    WRITE,
    Disk,
    Xen,
)

from pvdump.blkback.device import OPEN_REST, QUEUE_TRIES
from pvdump.blkback.instance import LINGER_STEPS, State
from pvdump.blkback.ports import Stalled
from pvxen.hypervisor import DOM0
from xenpv.block.blkif import X86_32

SHUTDOWN_SUSPEND = 2


@pytest.fixture
def front():
    return Xen().fronts[0]


def refuse(back, what, errors):
    """Have a port of the backend raise these errors first, one each."""
    owner, name = (back, "grants") if what == "map" else (back, what)
    port = getattr(owner, name)

    def call(*args):
        if what == "map":
            grants = port(*args)
            take = grants.map
            grants.map = lambda *refs: next_or(take, refs)
            return grants
        return next_or(port, args)

    def next_or(function, args):
        if errors:
            raise errors.pop()
        return function(*args)

    setattr(owner, name, call)


class TestNegotiation:
    def test_what_a_front_end_needs_for_its_ring_is_there_in_init_wait(self, front):
        assert front.back_state() == INIT_WAIT
        keys = ("max-ring-page-order", "max-ring-pages", "max-requests", "feature-persistent")
        assert [front.back(key) for key in keys] == ["4", "16", "512", "1"]
        assert front.back("feature-max-indirect-segments") == "256"

    def test_what_the_disk_is_is_there_when_connected(self, front):
        front.connect()
        keys = ("sectors", "sector-size", "physical-sector-size", "info")
        assert [front.back(key) for key in keys] == ["2048", "512", "512", "0"]
        for feature in ("flush-cache", "barrier", "discard"):
            assert front.back(f"feature-{feature}") == "1"
        assert front.back("discard-granularity") == "4096"

    def test_a_disk_that_cannot_discard_offers_none(self):
        class Solid(Disk):
            granularity = 0

        front = Xen(disk=Solid).fronts[0].connect()
        assert front.back("feature-discard") == "0"
        assert not front.xen.xen.store.exists(f"{front.device.path}/discard-granularity")

    def test_a_ring_page_order_of_0_goes_with_either_name_of_the_page(self, front):
        (ref,) = front.make_ring()
        front.write("ring-page-order", 0)
        assert front.say(INITIALISED) == CONNECTED
        front.write("ring-ref0", ref)
        front.say(CLOSED)
        front.say(INITIALISING)
        assert front.say(INITIALISED) == CONNECTED

    @pytest.mark.parametrize(
        ("key", "value", "says"),
        [
            ("ring-ref", "x", "ring-ref is 'x'"),
            ("ring-ref", "-1", "ring-ref is '-1'"),
            ("ring-ref", "99999999999", "ring-ref"),
            ("ring-ref", "400", "grant 400"),
            ("event-channel", "", "event-channel is ''"),
            ("event-channel", "99", "event channel 99"),
            ("event-channel", "4294967295", "event-channel"),
            ("protocol", "arm-abi", "x86_64-abi or x86_32-abi expected"),
            ("ring-page-order", "5", "a number from 0 to 4"),
            ("ring-page-order", "1", "ring-ref0 is missing"),
            ("num-ring-pages", "3", "a power of two"),
            ("num-ring-pages", "32", "a number from 0 to 16"),
            ("feature-persistent", "2", "a number from 0 to 1"),
            ("max-requests", "0", "a number from 1"),
            ("max-request-segments", "many", "a number from 1"),
            ("max-request-size", "512", "a number from 4096"),
            ("multi-queue-num-queues", "2", "a number from 0 to 1"),
        ],
    )
    def test_a_key_that_cannot_be_is_named_in_the_error_node(self, front, key, value, says):
        front.make_ring()
        front.write(key, value)
        assert front.say(INITIALISED) == CLOSING
        assert says in front.error()
        assert front.mapped() == 0
        assert len(front.xen.back.log) == 1

    def test_pages_named_twice_are_refused(self, front):
        ref, _ = front.make_ring(2)
        front.write("ring-ref1", ref)
        assert front.say(INITIALISED) == CLOSING
        assert "not different" in front.error()

    def test_the_error_node_goes_when_it_connects(self, front):
        front.make_ring()
        front.write("protocol", "arm-abi")
        front.say(INITIALISED)
        front.say(CLOSED)
        front.say(INITIALISING)
        front.write("protocol", "x86_32-abi")
        front.connect(layout=X86_32)
        assert front.error() == ""


class TestStates:
    def test_the_usual_way(self, front):
        front.make_ring()
        states = [INITIALISED, CONNECTED, CLOSING, CLOSED, INITIALISING]
        assert [front.say(s) for s in states] == [CONNECTED, CONNECTED, CLOSING, CLOSED, INIT_WAIT]

    def test_initialised_may_be_skipped(self, front):
        front.make_ring()
        assert front.say(CONNECTED) == CONNECTED

    def test_closing_may_be_skipped(self, front):
        front.connect()
        assert front.say(CLOSED) == CLOSED
        assert front.mapped() == 0

    def test_closing_and_closed_may_be_skipped(self, front):
        front.connect()
        assert front.say(INITIALISING) == INIT_WAIT
        assert front.mapped() == 0
        assert front.connect().status(FLUSH) == OKAY

    def test_another_ring_may_come_with_nothing_between(self, front):
        front.connect()
        front.connect()
        assert front.status(FLUSH) == OKAY
        assert front.mapped() == 1

    def test_keys_that_change_and_change_back_at_once_are_connected_to(self, front):
        (ref,) = front.make_ring()
        for keys in (ref, front.data(bytes(PAGE), False)[0][0], ref):
            front.write("ring-ref", keys)
            front.write("state", INITIALISED)
            front.xen.settle()
        front.xen.rest()
        assert front.back_state() == CONNECTED
        assert front.device.instance is not None
        assert front.status(FLUSH) == OKAY

    def test_the_same_ring_again_means_nothing(self, front):
        front.connect()
        instance = front.device.instance
        front.say(INITIALISED)
        front.say(CONNECTED)
        assert front.device.instance is instance

    @pytest.mark.parametrize("state", [CLOSED, INITIALISING])
    def test_the_same_ring_after_an_end_is_a_new_connection(self, front, state):
        front.connect()
        front.say(state)
        assert front.say(INITIALISED) == CONNECTED
        assert front.status(FLUSH) == OKAY

    def test_whoever_connects_is_told_to_look_at_the_ring(self, front):
        # An earlier backend may have answered and died before it told.
        front.connect()
        assert front.machine.events.is_pending(front.port)

    def test_closing_may_be_thought_better_of(self, front):
        front.connect()
        front.say(CLOSING)
        assert front.say(CONNECTED) == CONNECTED
        assert front.status(FLUSH) == OKAY

    def test_what_is_in_the_ring_is_answered_while_closing(self, front):
        front.connect()
        assert front.say(CLOSING) == CLOSING
        assert front.status(FLUSH) == OKAY

    def test_closed_comes_after_the_answers_and_after_what_was_held_back_meanwhile(self, front):
        front.connect()
        front.put(FLUSH)
        front.ring.push()
        front.write("state", CLOSED)
        front.xen.settle()
        assert [status for _, _, status in front.responses()] == [OKAY]
        assert front.back_state() == CONNECTED
        assert front.status(FLUSH) == OKAY
        for _ in range(LINGER_STEPS + 1):
            front.xen.rest()
        assert front.back_state() == CLOSED

    def test_closed_comes_at_once_when_nothing_is_under_way(self, front):
        front.connect()
        front.write("state", CLOSED)
        front.xen.settle()
        assert front.back_state() == CLOSED

    @pytest.mark.parametrize("state", ["", "x", "7", "8", "99", "-1", "٣", "²"])
    @pytest.mark.parametrize("encoding", ["utf-8", "latin-1"])
    def test_a_state_that_is_none_hurts_nobody(self, front, state, encoding):
        front.connect()
        raw = state.encode(encoding, "replace").decode("latin-1")
        front.xen.xen.store.write(f"{front.node}/state", raw)
        front.xen.settle()
        front.say(CLOSED)
        assert front.say(INITIALISING) == INIT_WAIT

    @pytest.mark.parametrize("state", ["", "x", *map(str, range(9))])
    @pytest.mark.parametrize("ours", [INITIALISING, CLOSING, CLOSED])
    def test_a_state_of_ours_that_somebody_else_wrote_is_put_right(self, front, ours, state):
        front.connect()
        expected = front.say(ours)
        front.xen.xen.store.write(f"{front.device.path}/state", state)
        front.say(ours)
        assert front.back("state") == str(expected)

    @pytest.mark.parametrize("what", ["grants", "bind", "queue", "run", "map"])
    @pytest.mark.parametrize("error", [Stalled("none left"), MemoryError()], ids=repr)
    def test_what_is_short_when_it_connects_is_waited_for_and_nothing_is_held_meanwhile(
        self, front, what, error
    ):
        short = [error] * 3
        refuse(front.xen.back, what, short)
        front.make_ring()
        before = front.xen.xen.evtchn.of(DOM0)
        assert front.say(INITIALISED) == INIT_WAIT
        assert front.mapped() == 0
        assert front.xen.xen.evtchn.of(DOM0) == before
        for _ in range(3):
            front.xen.rest()
        assert front.back_state() == CONNECTED
        assert front.status(FLUSH) == OKAY

    def test_a_shortage_is_told_once(self, front):
        refuse(front.xen.back, "bind", [Stalled("none left")] * 30)
        front.make_ring()
        front.say(INITIALISED)
        for _ in range(40):
            front.xen.rest()
        assert front.back_state() == CONNECTED
        assert front.xen.back.log == [
            f"pvdump_vbd {front.device.name}: connecting to {front.node}: none left; "
            "it is tried again"
        ]

    def test_a_queue_that_stays_refused_is_done_without(self, front):
        refuse(front.xen.back, "queue", [Stalled("io_setup: refused")] * 1000)
        front.make_ring()
        front.say(INITIALISED)
        for _ in range(QUEUE_TRIES):
            front.xen.rest()
        assert front.back_state() == CONNECTED
        data = front.data(bytes(PAGE))
        for sector in (0, 24, 48):
            front.put(WRITE, sector, data)
        assert [status for _, _, status in front.kick()] == [OKAY] * 3

    def test_a_front_end_whose_node_is_gone_is_let_go(self, front):
        front.connect()
        front.xen.xen.store.rm(front.node)
        front.xen.settle()
        assert front.back_state() == CLOSED
        assert front.mapped() == 0

    @pytest.mark.parametrize("order", list(itertools.permutations([1, 3, 4, 5, 6], 3)))
    def test_no_order_of_states_keeps_it_from_the_next_connection(self, front, order):
        front.make_ring()
        for state in order:
            front.say(state)
        assert front.say(CLOSED) == CLOSED
        assert front.say(INITIALISING) == INIT_WAIT
        assert front.connect().status(FLUSH) == OKAY


class TestSink:
    def test_one_that_grew_has_its_new_size_at_the_next_connection(self, front):
        front.connect()
        front.disk.data += bytes(PAGE)
        front.say(CLOSED)
        front.say(INITIALISING)
        front.connect()
        assert front.back("sectors") == "2056"
        assert front.status(READ, 2048, front.room(1)[0]) == OKAY

    def test_one_that_grew_keeps_its_size_for_the_connection_that_there_is(self, front):
        front.connect()
        front.disk.data += bytes(PAGE)
        assert front.status(READ, 2048, front.room(1)[0]) == ERROR

    def test_one_that_cannot_be_opened_yet_is_tried_again_and_told_once(self):
        xen = Xen()
        front = xen.fronts[0]
        errors = [Stalled("Connection refused")] * 5
        self.reopen(front, lambda *_: errors.pop() if errors else Disk())
        assert front.say(INITIALISING) == CLOSED
        for _ in range(6):
            xen.xen.clock.advance(xen.xen.clock.now + OPEN_REST)
            xen.settle()
        assert front.back_state() == INIT_WAIT
        assert xen.back.log == [
            f"pvdump_vbd {front.device.name}: opening a: Connection refused; it is tried again"
        ]

    def test_one_that_cannot_be_opened_yet_is_not_tried_more_often_for_a_restless_guest(self):
        xen = Xen()
        front = xen.fronts[0]
        tries = []
        self.reopen(front, lambda *_: (tries.append(1), Stalled("no"))[1])
        began = xen.xen.clock.now
        for _ in range(50):
            front.say(INITIALISING)
            front.say(CLOSED)
        assert len(tries) <= (xen.xen.clock.now - began) / OPEN_REST + 1

    def reopen(self, front, answer):
        """Have the sink opened anew. answer(...): the sink, or what is raised."""

        def opened(*args):
            found = answer(*args)
            if isinstance(found, Exception):
                raise found
            return found

        front.say(CLOSED)
        front.device.close()
        front.device._open = opened
        front.xen.xen.store.write(f"{front.device.path}/params", "a")

    def test_it_is_held_across_connections_and_closed_with_the_device(self, front):
        for _ in range(3):
            front.connect()
            front.say(CLOSED)
            front.say(INITIALISING)
        assert front.disk.closed == 0
        front.xen.back.detach(front.device)
        front.xen.settle()
        assert front.disk.closed == 1

    def test_one_that_cannot_be_opened_is_said_and_may_be_named_anew(self):
        xen = Xen()
        front = xen.fronts[0]
        front.say(CLOSED)
        sinks = {"a": OSError(2, "no such file", "a"), "b": Disk()}

        def opened(params, readonly, shared):
            if isinstance(sinks[params], OSError):
                raise sinks[params]
            return sinks[params]

        device = front.device
        device.close()
        device._open, device._params = opened, ""
        xen.xen.store.write(f"{device.path}/params", "a")
        xen.settle()
        assert front.back_state() == CLOSING
        assert front.error() == "opening a: no such file"
        xen.xen.store.write(f"{device.path}/params", "b")
        assert front.say(INITIALISING) == INIT_WAIT


STALLED = pytest.mark.parametrize("persistent", [False, True])


class TestRemoval:
    @pytest.mark.parametrize("states", [[], [3], [3, 4], [3, 4, 5], [3, 4, 5, 6], [6], [5]])
    def test_a_device_can_be_removed_in_any_state(self, front, states):
        front.make_ring()
        for state in states:
            front.say(state)
        front.xen.back.detach(front.device)
        front.xen.settle()
        assert front.xen.back.devices == {}
        assert (front.mapped(), front.disk.closed) == (0, 1)
        # Nothing of it is written again where the toolstack removed it.
        assert not front.xen.xen.store.exists(front.device.path)

    @pytest.mark.parametrize("states", [[], [3], [3, 4], [3, 4, 5], [3, 4, 5, 6]])
    def test_its_domain_can_be_destroyed_in_any_state(self, states):
        xen = Xen(2)
        front, other = xen.fronts
        other.connect()
        front.make_ring()
        for state in states:
            front.say(state)
        front.put(READ, 0, front.room(1)[0])
        front.ring.push()
        xen.xen.destroy(front.domain.domid)
        xen.settle()
        xen.back.store.remove(front.device.path)
        xen.settle()
        assert list(xen.back.devices) == [other.device.path]
        assert other.status(FLUSH) == OKAY

    @pytest.mark.parametrize("state", [INITIALISING, CLOSED])
    def test_its_sink_is_closed_before_a_toolstack_that_takes_it_offline_sees_closed(
        self, front, state
    ):
        front.connect()
        closed = []
        front.disk.close = lambda: closed.append(front.back_state())
        store = front.xen.xen.store
        store.write(f"{front.device.path}/online", 0)
        assert front.say(state) == CLOSED
        assert closed == [CONNECTED]
        store.write(f"{front.device.path}/online", 1)
        assert front.say(INITIALISING) == INIT_WAIT

    def test_a_toolstack_that_takes_it_offline_sees_it_closed(self, front):
        front.connect()
        front.xen.xen.store.write(f"{front.device.path}/online", 0)
        front.xen.xen.store.write(f"{front.device.path}/state", CLOSING)
        front.say(CLOSING)
        assert front.say(CLOSED) == CLOSED
        assert front.say(INITIALISING) == CLOSED


class TestInFlight:
    """The disk stalls while a connection ends: nothing is unmapped under an I/O, nothing hangs."""

    def stalled(self, front, persistent=False):
        front.connect(persistent=persistent)
        front.disk.stalled = True
        front.put(WRITE, 0, front.data(bytes(PAGE), False))
        assert front.kick() == []
        return front

    @STALLED
    @pytest.mark.parametrize("state", [INITIALISING, CLOSED])
    def test_a_front_end_can_leave(self, front, state, persistent):
        self.stalled(front, persistent)
        assert front.say(state) == (INIT_WAIT if state == INITIALISING else CLOSED)
        assert front.mapped() == 0

    def test_the_device_can_be_removed(self, front):
        self.stalled(front)
        front.xen.back.detach(front.device)
        front.xen.settle()
        assert front.xen.back.devices == {}

    def test_the_domain_can_be_destroyed(self, front):
        self.stalled(front)
        front.xen.xen.destroy(front.domain.domid)
        front.xen.settle()
        assert front.device.instance is None

    def test_requests_are_done_in_their_order_when_the_disk_goes_on(self, front):
        self.stalled(front)
        front.put(WRITE, 0, front.data(b"\1" * PAGE))
        front.put(FLUSH)
        front.kick()
        front.disk.stalled = False
        front.xen.xen.clock.advance(front.xen.xen.clock.now + 20_000_000)
        front.xen.settle()
        assert [r[2] for r in front.responses()] == [OKAY] * 3
        assert front.disk.stable[:PAGE] == b"\1" * PAGE

    def test_its_worker_waits_meanwhile(self, front):
        self.stalled(front)
        assert front.device.instance.state is State.WAITING


def test_a_domain_that_was_suspended_and_goes_on_keeps_its_disk(front):
    front.connect()
    domid = front.domain.domid
    front.machine.shutdown(SHUTDOWN_SUSPEND)
    front.xen.settle()
    front.xen.xen.resume(domid)
    front.xen.settle()
    assert front.status(READ, 0, front.room(1)[0]) == OKAY
