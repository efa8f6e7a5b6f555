"""The xenstore client: operations, many in flight, too little memory, replies that break rules."""

import random
from collections import Counter

import pytest
from fixtures.storeguest import HOME, StoreGuest

from pvxen.machine import Machine
from xenpv import abi
from xenpv.bytering import ByteRing
from xenpv.errors import RingCorrupt, Timeout, XenError, XenstoreError
from xenpv.evtchn import EventChannels
from xenpv.loop import SECOND
from xenpv.xenstore import session, wire
from xenpv.xenstore.watch import Watch


def test_the_operations_on_nodes_work():
    async def work(store):
        await store.write("data/x", "value")
        await store.mkdir("data/y")
        assert await store.read("data/x") == b"value"
        assert await store.directory("data") == ["x", "y"]
        await store.rm("data/x")
        with pytest.raises(XenstoreError, match="read data/x: ENOENT"):
            await store.read("data/x")
        assert await store.read_text("data/x", "none") == "none"
        await store.set_perms("data/y", [("n", 1), ("r", 3)])
        assert await store.get_perms("data/y") == [("n", 1), ("r", 3)]
        assert await store.get_domain_path(7) == "/local/domain/7"

    StoreGuest().run(work)


@pytest.mark.parametrize("seed", range(20))
def test_replies_in_any_order_reach_their_callers(seed):
    setup = StoreGuest(Machine(seed=seed), reorder=True)

    async def work(store):
        async def ask(i):
            await store.write(f"data/{i}", f"v{i}")
            return await store.read(f"data/{i}")

        assert await setup.loop.gather([ask(i) for i in range(12)]) == [
            f"v{i}".encode() for i in range(12)
        ]

    setup.run(work)


def test_more_requests_than_there_is_room_for_wait_for_it():
    setup = StoreGuest()

    async def work(store):
        writes = [store.write(f"data/{i}", "v" * 1900) for i in range(40)]
        await setup.loop.gather(writes)
        assert len(await store.directory("data")) == 40

    setup.run(work)


def test_a_late_reply_to_a_given_up_request_harms_nobody():
    setup = StoreGuest()
    setup.ring.deaf = True

    async def work(store):
        with pytest.raises(Timeout):
            await store.read("name")
        setup.ring.deaf = False
        assert await store.read("name") == b"guest"
        assert store.connected()

    setup.run(work)


def test_a_cancelled_caller_s_reply_is_dropped_and_its_neighbours_get_theirs():
    setup = StoreGuest()

    async def work(store):
        tasks = [setup.loop.spawn(store.read("name")) for _ in range(3)]
        await setup.loop.sleep(0)
        tasks[1].cancel()
        assert await store.read("name") == b"guest"
        assert [task.result for task in tasks] == [b"guest", None, b"guest"]
        assert store._session.strays == 1

    setup.run(work)


# What the task that moves bytes asks memory for, each in a function of its own.
MEMORY = [
    *[(session, name) for name in ("Reply", "WatchEvent")],
    *[(session.Session, name) for name in ("event", "receive", "request", "outgoing")],
    *[(wire, name) for name in ("Packet", "header", "error_name")],
    *[(wire.Buffer, name) for name in ("put", "view")],
    *[(ByteRing, name) for name in ("_indexes", "read", "write")],
    *[(Watch, name) for name in ("take", "_covers")],
    (EventChannels, "send"),
]


def run_short(monkeypatch, store, draw, every):
    """Each place of MEMORY fails now and then while the client moves bytes. Returns a counter."""
    failed = Counter()
    step = store._step
    moving = []

    def mover():
        moving.append(1)
        try:
            return step()
        finally:
            moving.pop()

    def shorten(owner, name):
        whole = getattr(owner, name)

        def short(*args):
            if moving and draw.randrange(every) == 0:
                failed[name] += 1
                raise MemoryError
            if name != "send":
                return whole(*args)
            # The server acts meanwhile, and has memory.
            moving.pop()
            try:
                whole(*args)
            finally:
                moving.append(1)

        monkeypatch.setattr(owner, name, short)

    for owner, name in MEMORY:
        shorten(owner, name)
    monkeypatch.setattr("gc.collect", lambda: None)
    monkeypatch.setattr(store, "_step", mover)
    return failed


def talk_short_of_memory(monkeypatch, seed):
    """Writes, reads, errors and events while memory runs out. Returns how often which failed."""
    setup = StoreGuest(Machine(seed=seed), piecemeal=True, reorder=True)

    async def ask(store, i):
        await store.write(f"data/{i}", f"v{i}" * 200)
        with pytest.raises(XenstoreError, match="ENOENT"):
            await store.read(f"data/none{i}")
        return await store.read(f"data/{i}")

    async def work(store):
        watch = await store.watch("data", limit=100)
        assert await watch.next() == "data"
        with monkeypatch.context() as patch:
            failed = run_short(patch, store, random.Random(seed), 20)
            values = await store.loop.gather([ask(store, i) for i in range(12)])
        assert values == [f"v{i}".encode() * 200 for i in range(12)]
        assert await store.read("name") == b"guest"
        assert (watch.waiting(), watch.dropped, store._session.strays) == (12, 0, 0)
        assert {await watch.next() for _ in range(12)} == {f"data/{i}" for i in range(12)}
        return failed

    return setup.run(work)


def test_memory_that_runs_out_anywhere_only_delays(monkeypatch):
    failed = Counter()
    for seed in range(1, 21):
        failed += talk_short_of_memory(monkeypatch, seed)
    assert set(failed) == {name for _, name in MEMORY}


def test_the_server_is_told_although_memory_ran_out_when_it_was_to_be(monkeypatch):
    setup = StoreGuest()

    async def work(store):
        whole, left = setup.loop.evtchn.send, [1]

        def short(port):
            if left[0]:
                left[0] -= 1
                raise MemoryError
            whole(port)

        monkeypatch.setattr(setup.loop.evtchn, "send", short)
        before = setup.machine.clock.now
        assert await store.read("name") == b"guest"
        assert left == [0]
        assert setup.machine.clock.now - before < SECOND

    setup.run(work)


def test_connecting_again_at_once_leaves_nobody_waiting_on_the_old_connection():
    setup = StoreGuest(features=abi.XENSTORE_SERVER_FEATURE_RECONNECTION)

    async def work(store):
        async def ask():
            try:
                return await store.read("name")
            except RingCorrupt as error:
                return str(error)

        setup.ring.deaf = True
        tasks = [setup.loop.spawn(ask()) for _ in range(3)]
        await setup.loop.sleep(0)
        began = setup.machine.clock.now
        setup.ring.deaf = False
        await store.connect()
        pump = store._pump
        assert await store.read("name") == b"guest"
        assert ["the connection was made anew" in task.result for task in tasks] == [True] * 3
        assert setup.machine.clock.now - began < SECOND
        assert store._session.flying() == 0
        await store.close()
        assert pump.done

    setup.run(work)


def answer(setup, raw):
    """The server puts these bytes in the reply ring in place of an answer."""
    setup.ring.deaf = True
    setup.machine.clock.after(SECOND, lambda: setup.ring.leave_reply(raw))


@pytest.mark.parametrize("length", [4097, 0xFFFFFFFF])
def test_a_reply_that_breaks_a_limit_ends_the_connection_for_all(length):
    setup = StoreGuest()
    answer(setup, wire.struct.pack("<IIII", 2, 1, 0, length))
    message = f"len {length} is over 4096"

    async def work(store):
        watch = await store.watch("data") if not setup.ring.deaf else None
        assert watch is None
        other = setup.loop.spawn(store.ended())
        with pytest.raises(RingCorrupt, match=message):
            await store.read("name")
        with pytest.raises(RingCorrupt, match=message):
            await store.read("name")
        await setup.loop.sleep(0)
        assert message in other.result

    setup.run(work)


@pytest.mark.parametrize("path", ["", "a\0b", "a" * 2049, "/" + "a" * 3072])
def test_a_path_that_cannot_be_is_refused_before_it_is_sent(path):
    with pytest.raises(ValueError, match="xenstore path"):
        StoreGuest().run(lambda store: store.read(path))


@pytest.mark.parametrize("value", ["", "-1", "x", "1" * 21, "0x10"])
def test_a_value_that_is_no_number_is_refused_by_name(value):
    setup = StoreGuest()
    setup.server.write(HOME + "/data/n", value, "n1")
    with pytest.raises(XenError, match="data/n: a decimal number expected"):
        setup.run(lambda store: store.read_int("data/n"))
