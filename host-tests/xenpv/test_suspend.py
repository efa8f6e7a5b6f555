"""Suspension on the embedded Xen: the drivers go on in another domain, and cost no memory."""

import random

import pytest
from fixtures.suspended import SERVERS, SuspendedGuest

from pvxen.control import ask
from xenpv import abi
from xenpv.control import Control
from xenpv.errors import XenstoreError
from xenpv.loop import SECOND

HOUR = 3600 * SECOND


@pytest.mark.parametrize("features", SERVERS)
def test_after_a_migration_store_watches_and_disk_go_on(features):
    guest = SuspendedGuest(server_features=features)

    async def work():
        disk = await guest.connected()
        watch = await guest.store.watch("data")
        await watch.next()
        guest.fill(0x200, 8, 1)
        await disk.write(0, 0x200, 64)
        await guest.migrated()
        assert guest.domain.domid == 2
        assert await watch.next() == "data"
        guest.xen.store.write(f"{guest.domain.home}/data/x", "there")
        assert await watch.next() == "data/x"
        assert await guest.store.read_text("domid") == "2"
        await disk.write(64, 0x200, 64)
        await disk.read(0, 0x300, 64)
        await disk.flush()
        await disk.close()

    guest.run(work)
    content = guest.content(0x200, 8)
    assert guest.disk_content(128) == content + content
    assert guest.content(0x300, 8) == content
    assert guest.domain.machine.gnttab.active == {}


@pytest.mark.parametrize("features", SERVERS)
def test_after_a_checkpoint_the_same_domain_goes_on(features):
    guest = SuspendedGuest(server_features=features)

    async def work():
        disk = await guest.connected()
        watch = await guest.store.watch("data")
        await watch.next()
        await guest.suspended(guest.xen.go_on)
        assert guest.domain.domid == 1
        assert await watch.next() == "data"
        guest.fill(0x200, 8, 1)
        await disk.write(0, 0x200, 64)
        await disk.close()
        await watch.close()

    guest.run(work)
    assert guest.disk_content(64) == guest.content(0x200, 8)
    assert guest.domain.machine.gnttab.active == {}


@pytest.mark.parametrize("features", SERVERS)
def test_a_transaction_does_not_go_on_in_the_next_domain(features):
    """Its number may be another one's there."""
    guest = SuspendedGuest(server_features=features)

    async def work():
        old = guest.store.transaction()
        await old.__aenter__()
        await old.write("data/old", "old")
        await guest.migrated()
        async with guest.store.transaction() as new:
            assert new.tx_id == old.tx_id
            with pytest.raises(XenstoreError, match="EAGAIN"):
                await old.write("data/old", "old")
            await new.write("data/new", "new")
        assert await guest.store.directory("data") == ["new"]

    guest.run(work)


@pytest.mark.parametrize("version", [1, 2])
def test_100_suspensions_take_no_page(version):
    guest = SuspendedGuest(gnttab_version=version, gnttab_max_version=2)
    free = []

    async def work():
        disk = await guest.connected()
        for i in range(100):
            await guest.suspended(guest.xen.go_on if i % 5 == 4 else guest.xen.migrate)
            guest.fill(0x200, 40, i)
            await disk.write(0, 0x200, 320)
            await disk.drain()
            assert guest.disk_content(320) == guest.content(0x200, 40)
            free.append((guest.free_pages(), guest.grants.free()))
        await disk.close()

    guest.run(work)
    assert set(free) == {free[0]}
    assert guest.domain.domid == 81


@pytest.mark.parametrize("host_time", [5 * HOUR, -900 * SECOND])
def test_the_time_goes_on_where_it_stood(host_time):
    guest = SuspendedGuest()

    async def work():
        guest.host_time = host_time
        before = guest.loop.now()
        await guest.migrated()
        assert 0 < guest.loop.now() - before < SECOND
        began = guest.domain.machine.now()
        await guest.loop.sleep(3 * SECOND)
        assert 3 * SECOND <= guest.domain.machine.now() - began < 4 * SECOND

    guest.run(work)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("features", SERVERS)
def test_nothing_that_was_acknowledged_is_lost(features, seed):
    """Writers go on while the domain is migrated and checkpointed at any time."""
    guest = SuspendedGuest(server_features=features, seed=seed, latency=1_000_000)
    drawn = random.Random(seed)
    done, counted = [], []

    async def write(disk, number):
        for i in range(12):
            gfn = 0x200 + 16 * number
            guest.fill(gfn, 16, (seed, number, i))
            sector = 128 * (12 * number + i)
            await disk.write(sector, gfn, 128)
            await disk.drain()
            done.append((sector, guest.content(gfn, 16)))
            await guest.store.write(f"data/{number}", str(i))

    async def count():
        async def one_more(transaction):
            value = await transaction.read_int("data/count", 0)
            await guest.loop.sleep(drawn.randrange(2) * 1_000_000)
            await transaction.write("data/count", str(value + 1))
            return await transaction.read_int("domid")

        for _ in range(30):
            counted.append(await guest.store.transact(one_more))

    async def move():
        for _ in range(4):
            await guest.loop.sleep(drawn.randrange(30) * 1_000_000)
            await guest.suspended(drawn.choice((guest.xen.migrate, guest.xen.go_on)))

    async def work():
        disk = await guest.connected()
        await guest.loop.gather([write(disk, 0), write(disk, 1), count(), move()])
        await disk.close()

    guest.run(work)
    assert len(done) == 24
    for sector, content in done:
        at = sector * 512
        assert bytes(guest.disk.sink.data[at : at + len(content)]) == content
    # Another domain's nodes are new, so those count that were made in the last one.
    last = counted.count(guest.domain.domid)
    assert int(guest.xen.store.read(f"{guest.domain.home}/data/count", "0")) == last


def test_the_toolstack_may_ask_again_after_a_migration():
    guest = SuspendedGuest()
    said = []

    async def work():
        control = Control(guest.guest, said.append)
        guest.loop.spawn(control.run())
        await guest.loop.sleep(SECOND)
        for _ in range(3):
            suspension = guest.suspension(guest.xen.migrate)
            await guest.loop.sleep(SECOND)
            assert suspension.outcome == "suspended"
        ask(guest.domain, "poweroff")
        await guest.loop.sleep(SECOND)

    assert guest.end(work) == abi.SHUTDOWN_poweroff
    assert guest.domain.domid == 4
    assert said.count("resumed") == 3
