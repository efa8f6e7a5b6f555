"""Watches of the xenstore client: events in order, bounded queues, and their end."""

import pytest
from fixtures.storeguest import StoreGuest

from xenpv import abi
from xenpv.errors import RingCorrupt, Timeout, XenstoreError
from xenpv.loop import SECOND
from xenpv.xenstore import wire


def test_the_first_event_comes_at_once_and_then_one_a_change_in_order():
    async def work(store):
        watch = await store.watch("data")
        for name in "abc":
            await store.write(f"data/{name}", "1")
        assert [await watch.next() for _ in range(4)] == ["data", "data/a", "data/b", "data/c"]

    StoreGuest().run(work)


def test_two_watches_of_one_path_each_get_theirs():
    async def work(store):
        first, second = await store.watch("data"), await store.watch("data")
        await store.write("data/x", "1")
        for watch in (first, second):
            assert [await watch.next(), await watch.next()] == ["data", "data/x"]

    StoreGuest().run(work)


def test_a_full_queue_keeps_the_first_and_counts_the_rest():
    async def work(store):
        watch = await store.watch("data", limit=2)
        for name in "abc":
            await store.write(f"data/{name}", "1")
        assert (watch.waiting(), watch.dropped) == (2, 2)
        assert [await watch.next(), await watch.next()] == ["data", "data/a"]

    StoreGuest().run(work)


def test_nothing_comes_after_close():
    async def work(store):
        watch = await store.watch("data")
        await watch.next()
        await watch.close()
        await store.write("data/x", "1")
        with pytest.raises(RingCorrupt, match="watch data: it has ended"):
            await watch.next()

    StoreGuest().run(work)


def test_waiting_has_a_deadline():
    async def work(store):
        watch = await store.watch("data")
        await watch.next()
        with pytest.raises(Timeout, match=r"nothing changed within 2000 ms; indexes req .* rsp"):
            await watch.next(2 * SECOND)

    StoreGuest().run(work)


def test_who_waits_hears_that_the_connection_has_ended():
    setup = StoreGuest()

    async def work(store):
        watch = await store.watch("data")
        await watch.next()
        setup.ring.leave_reply(b"\xff" * 16)
        with pytest.raises(RingCorrupt, match=r"watch data: .* len 4294967295 is over 4096"):
            await watch.next(None)

    setup.run(work)


@pytest.mark.parametrize("payload", [b"data\0other\0", b"datax\0%s\0", b"dat\0%s\0", b"\0%s\0"])
def test_an_event_that_belongs_to_no_watch_is_dropped(payload):
    setup = StoreGuest()

    async def work(store):
        watch = await store.watch("data")
        await watch.next()
        if b"%s" in payload:
            raw = payload % watch.token.encode()
        else:
            raw = payload
        setup.ring.leave_reply(wire.Packet(abi.XS_WATCH_EVENT, 0, 0, raw).encode())
        await store.read("name")
        assert watch.waiting() == 0
        assert store._session.strays == 1

    setup.run(work)


def test_one_cancelled_while_it_is_being_set_is_ended():
    setup = StoreGuest()

    async def work(store):
        setup.ring.deaf = True
        task = setup.loop.spawn(store.watch("data"))
        await setup.loop.sleep(SECOND // 10)
        task.cancel()
        setup.ring.deaf = False
        await store.read("name")
        assert not store.watches
        assert not setup.ring.connection.watches

    setup.run(work)


def test_a_watch_that_is_refused_is_forgotten():
    async def work(store):
        with pytest.raises(XenstoreError, match="EINVAL"):
            await store.watch("bad//path")
        with pytest.raises(ValueError, match="xenstore path"):
            await store.watch("")
        assert not store.watches
        assert store._session.flying() == 0

    StoreGuest().run(work)
