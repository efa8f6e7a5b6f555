"""The xenstore client on the embedded machine: requests, take-over, hand-over, hostile servers."""

import pytest

import hw
from pvdump.xen.machine import Machine
from pvdump.xenstored.ring import RingTransport as ServerRing
from pvdump.xenstored.server import Xenstored
from xenpv import abi, xs_wire
from xenpv.errors import RingCorrupt, Timeout, XenError, XenstoreError
from xenpv.evtchn import EventChannels
from xenpv.hypercall import Hypercalls
from xenpv.loop import SECOND
from xenpv.schedpoll import PollLoop
from xenpv.xenstore import Xenstore
from xenpv.xs_ring import RingTransport

FEATURES = pytest.mark.parametrize("features", [0, 1], ids=["plain", "reconnect"])
PFN = 0x100
HOME = "/local/domain/1"


class Setup:
    """A guest with a store. options go to the ring's server side."""

    def __init__(self, machine=None, **options):
        self.machine = machine or Machine()
        hw.attach(self.machine)
        self.server = Xenstored()
        self.server.write(HOME + "/name", "guest", "n0 r1")
        self.server.write(HOME + "/data", "", "n1")
        port = self.machine.evtchn.alloc_unbound(1, 0)
        self.ring = ServerRing(self.machine, self.server, PFN, port, **options)
        self.machine.params[abi.HVM_PARAM_STORE_PFN] = PFN
        self.machine.params[abi.HVM_PARAM_STORE_EVTCHN] = port
        self.xen = Hypercalls()
        self.loop = PollLoop(self.xen, EventChannels(self.xen))
        self.store = Xenstore(self.loop, RingTransport(self.xen, self.loop))

    def run(self, work):
        """Run work(store) with a connected client."""

        async def main():
            await self.store.connect()
            return await work(self.store)

        return self.loop.run(main())


async def round_trip(store):
    await store.write("data/x", "value")
    assert await store.read("data/x") == b"value"
    assert await store.directory("data") == ["x"]
    await store.rm("data/x")
    with pytest.raises(XenstoreError, match="read data/x: ENOENT"):
        await store.read("data/x")


@FEATURES
@pytest.mark.parametrize("events", ["2l", "dead"])
def test_the_operations_work(features, events):
    setup = Setup(Machine(events=events), features=features)
    setup.run(round_trip)
    assert setup.ring.reconnects == features


@pytest.mark.parametrize("start", [(0, 0), (0x3B5, 0x349), (0xFFFFFFF0, 0xFFFFFFFE)])
@FEATURES
def test_the_ring_is_used_from_whatever_indexes_it_has(start, features):
    Setup(start=start, features=features).run(round_trip)


@pytest.mark.parametrize("seed", range(20))
@FEATURES
def test_messages_larger_than_the_ring_go_through_in_pieces_of_any_size(seed, features):
    setup = Setup(Machine(seed=seed), features=features, piecemeal=True)
    value = bytes(range(256)) * 7

    async def work(store):
        await store.write("data/big", value)
        assert await store.read("data/big") == value

    setup.run(work)


@pytest.mark.parametrize("seed", range(20))
def test_replies_in_any_order_reach_their_callers(seed):
    setup = Setup(Machine(seed=seed), reorder=True)

    async def work(store):
        got = {}

        async def ask(i):
            await store.write(f"data/{i}", f"v{i}")
            got[i] = await store.read(f"data/{i}")

        tasks = [setup.loop.spawn(ask(i)) for i in range(12)]
        while not all(task.done for task in tasks):
            await setup.loop.sleep(SECOND // 100)
        assert got == {i: f"v{i}".encode() for i in range(12)}

    setup.run(work)


def test_with_reconnection_nothing_of_an_earlier_kernel_is_left():
    setup = Setup(features=1, start=(5, 1000))
    setup.ring.leave_request(
        xs_wire.Packet(abi.XS_WRITE, 3, 0, b"data/half\0" + b"x" * 50).encode()[:40]
    )
    setup.ring.leave_reply(b"\x02\0\0\0half a header", read=3)
    setup.run(round_trip)
    assert setup.ring.reconnects == 1
    assert not setup.server.exists(HOME + "/data/half")


def test_without_reconnection_a_whole_unread_reply_is_passed_over():
    setup = Setup()
    setup.ring.leave_reply(xs_wire.Packet(abi.XS_READ, 77, 0, b"old").encode())
    setup.run(round_trip)


@FEATURES
def test_after_close_another_client_can_use_the_ring(features):
    setup = Setup(features=features)

    async def work(store):
        await round_trip(store)
        await store.close()
        again = Xenstore(setup.loop, RingTransport(setup.xen, setup.loop))
        await again.connect()
        await round_trip(again)
        await again.close()

    setup.run(work)
    assert setup.ring.reconnects == 4 * features
    req_cons, req_prod, rsp_cons, rsp_prod = setup.ring.indexes()
    assert (req_cons, rsp_cons) == (req_prod, rsp_prod)


@pytest.mark.parametrize(("pfn", "port"), [(0, 3), (2**64 - 1, 3)])
def test_a_guest_without_xenstore_is_told_so(pfn, port):
    setup = Setup()
    setup.machine.params[abi.HVM_PARAM_STORE_PFN] = pfn
    with pytest.raises(XenError, match="no xenstore: HVM_PARAM_STORE_PFN"):
        setup.run(round_trip)


def test_a_port_that_cannot_be_is_refused():
    setup = Setup()
    setup.machine.params[abi.HVM_PARAM_STORE_EVTCHN] = 0
    with pytest.raises(XenError, match="port 0 is not valid"):
        setup.run(round_trip)


def test_a_silent_server_is_given_up_with_the_four_indexes():
    setup = Setup()
    setup.ring.deaf = True
    with pytest.raises(
        Timeout, match=r"read name: no reply within 5000 ms; indexes req 15/0 rsp 0/0"
    ):
        setup.run(lambda store: store.read("name"))


def test_a_server_that_ignores_reconnection_is_given_up():
    setup = Setup(features=1)
    setup.ring.deaf = True
    with pytest.raises(Timeout, match="did not clear `connection`"):
        setup.run(round_trip)


def test_a_late_reply_to_a_given_up_request_harms_nobody():
    setup = Setup()
    setup.ring.deaf = True

    async def work(store):
        with pytest.raises(Timeout):
            await store.read("name")
        setup.ring.deaf = False
        await round_trip(store)

    setup.run(work)


def answer(setup, raw):
    """The server puts these bytes in the reply ring in place of an answer."""
    setup.ring.deaf = True
    setup.machine.clock.at(setup.machine.clock.now + SECOND, lambda: setup.ring.leave_reply(raw))


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (xs_wire.struct.pack("<IIII", 2, 1, 0, 4097), "len 4097 is over 4096"),
        (xs_wire.struct.pack("<IIII", 2, 1, 0, 0xFFFFFFFF), "len 4294967295 is over 4096"),
    ],
)
def test_a_reply_that_breaks_a_limit_ends_the_connection(raw, message):
    setup = Setup()
    answer(setup, raw)

    async def work(store):
        with pytest.raises(RingCorrupt, match=message):
            await store.read("name")
        with pytest.raises(RingCorrupt, match=message):
            await store.read("name")

    setup.run(work)


def test_indexes_that_jump_end_the_connection():
    setup = Setup()
    setup.ring.deaf = True
    page = PFN * 4096

    def jump():
        hw.wr32(page + abi.XENSTORE_RING_RSP_PROD, 5000)

    setup.machine.clock.at(setup.machine.clock.now + SECOND, jump)
    with pytest.raises(RingCorrupt, match="reply ring: prod 0x1388 - cons 0x0 is over its 1024"):
        setup.run(lambda store: store.read("name"))


def test_a_reply_of_another_type_ends_the_connection():
    setup = Setup()
    setup.ring.deaf = True

    async def work(store):
        store._session._next_id = 0x51
        await store.read("name")

    raw = xs_wire.Packet(abi.XS_DIRECTORY, 0x51, 0, b"x\0").encode()
    setup.machine.clock.at(setup.machine.clock.now + SECOND, lambda: setup.ring.leave_reply(raw))
    with pytest.raises(RingCorrupt, match="reply of type 1 to req_id 81, which asked for type 2"):
        setup.run(work)


def test_the_server_s_error_field_is_part_of_the_message():
    setup = Setup(features=abi.XENSTORE_SERVER_FEATURE_ERROR)

    async def work(store):
        hw.wr32(PFN * 4096 + abi.XENSTORE_RING_REQ_CONS, 7000)
        await store.read("name")

    with pytest.raises(XenError, match=r"server's error \d \("):
        setup.run(work)


def test_watch_events_that_nobody_asked_for_are_dropped():
    setup = Setup()

    async def work(store):
        setup.ring.leave_reply(xs_wire.Packet(abi.XS_WATCH_EVENT, 0, 0, b"no NUL").encode())
        await round_trip(store)

    setup.run(work)


@pytest.mark.parametrize("path", ["", "a\0b", "a" * 2049, "/" + "a" * 3072])
def test_a_path_that_cannot_be_is_refused_before_it_is_sent(path):
    with pytest.raises(ValueError, match="xenstore path"):
        Setup().run(lambda store: store.read(path))


@pytest.mark.parametrize("value", ["", "-1", "x", "1" * 21, "0x10"])
def test_a_value_that_is_no_number_is_refused_by_name(value):
    setup = Setup()
    setup.server.write(HOME + "/data/n", value, "n1")
    with pytest.raises(XenError, match="data/n: a decimal number expected"):
        setup.run(lambda store: store.read_int("data/n"))
