"""Frozen into an image: a block front end that does its backend all the harm it can, for ever.

A round: connect, a ring full of requests that are none, an index that cannot be; and again as soon
as the backend has cut the connection. On the console: "round N" when one has ended.
"""

import hw
from xenpv import abi
from xenpv.block import takeover
from xenpv.block.connection import Connection, Pool
from xenpv.block.negotiate import Limits
from xenpv.errors import XenError
from xenpv.guest import Guest
from xenpv.loop import SECOND
from xenpv.xenbus import Device

FLUSH_MS = 2000
GARBAGE = 0xA5
BEYOND = 5000
# Of a round, ns.
TIMEOUT = 60 * SECOND


def main():
    guest = Guest()
    guest.loop.run(work(guest))


async def work(guest):
    loop, store = guest.loop, guest.store
    await store.connect()
    (number,) = await store.directory("device/vbd")
    device = Device(store, loop, "device/vbd/" + number)
    grants, pool = guest.grants, Pool(0)
    rounds = 0
    while True:
        rounds += 1
        await device.find()
        device.allow(TIMEOUT)
        await takeover.end_connection(device)
        await device.begin()
        connection = Connection(loop, grants, device, pool, Limits(4, 512, 256))
        try:
            await connection.connect()
            await harm(loop, device, connection)
        except XenError as e:
            print("round %d: %s" % (rounds, e))
        connection.let_go()
        await device.close()
        print("round %d" % rounds)
        hw.console_flush(FLUSH_MS)


async def harm(loop, device, connection):
    ring = connection.requests.ring
    memory, size = ring.memory, ring.slots * ring.stride
    memory.view[abi.SRING_RING : abi.SRING_RING + size] = bytes([GARBAGE]) * size
    for prod in (ring.slots, ring.slots + BEYOND):
        memory.wr32(abi.SRING_REQ_PROD, prod)
        loop.evtchn.send(connection.port)
        while prod == ring.slots and memory.rd32(abi.SRING_RSP_PROD) != prod:
            await connection.kick.wait(None)
    gone = (abi.XenbusStateClosing, abi.XenbusStateClosed)
    await device.wait_backend(gone, "doing harm")
