"""Transactions of the xenstore client: committed, aborted, and done again."""

import pytest
from fixtures.storeguest import HOME, StoreGuest

from xenpv.errors import XenstoreError
from xenpv.loop import SECOND


def test_the_end_of_the_block_commits():
    setup = StoreGuest()

    async def work(store):
        async with store.transaction() as t:
            await t.write("data/x", "1")
            assert await t.read("data/x") == b"1"
            assert not setup.server.exists(HOME + "/data/x")
        assert await store.read("data/x") == b"1"

    setup.run(work)


def test_an_exception_aborts():
    setup = StoreGuest()

    async def work(store):
        async def fail():
            async with store.transaction() as t:
                await t.write("data/x", "1")
                raise KeyError

        with pytest.raises(KeyError):
            await fail()
        assert await store.directory("data") == []
        assert not setup.ring.connection.transactions

    setup.run(work)


def test_one_that_is_cancelled_is_aborted():
    setup = StoreGuest()

    async def stuck(store):
        async with store.transaction() as t:
            await t.write("data/x", "1")
            await setup.loop.sleep(100 * SECOND)

    async def work(store):
        task = setup.loop.spawn(stuck(store))
        await setup.loop.sleep(SECOND)
        assert setup.ring.connection.transactions
        task.cancel()
        await store.read("name")
        assert not setup.ring.connection.transactions
        assert await store.directory("data") == []

    setup.run(work)


def test_one_cancelled_while_it_begins_is_aborted():
    setup = StoreGuest()

    async def begin(store):
        async with store.transaction():
            raise AssertionError("it began")

    async def work(store):
        setup.ring.deaf = True
        task = setup.loop.spawn(begin(store))
        await setup.loop.sleep(SECOND // 10)
        task.cancel()
        setup.ring.deaf = False
        await store.read("name")
        await store.read("name")
        assert not setup.ring.connection.transactions
        assert store._session.flying() == 0

    setup.run(work)


def test_work_is_done_again_when_another_came_in_between():
    setup = StoreGuest()
    tries = []

    async def work(store):
        await store.write("data/n", "1")

        async def add(t):
            tries.append(1)
            n = await t.read_int("data/n")
            if len(tries) < 3:
                setup.server.write(HOME + "/data/n", str(n + 10))
            await t.write("data/n", str(n + 1))
            return n

        assert await store.transact(add) == 21
        assert await store.read("data/n") == b"22"

    setup.run(work)
    assert len(tries) == 3


def test_the_tries_are_bounded():
    setup = StoreGuest()

    async def work(store):
        async def never(t):
            await t.read("name")
            setup.server.write(HOME + "/name", "x")
            await t.write("data/x", "1")

        with pytest.raises(XenstoreError, match="transaction, 4 times: EAGAIN"):
            await store.transact(never, tries=4)

    setup.run(work)


def test_another_error_is_not_tried_again():
    async def work(store):
        async def absent(t):
            await t.read("data/none")

        with pytest.raises(XenstoreError, match="ENOENT"):
            await store.transact(absent)

    StoreGuest().run(work)
