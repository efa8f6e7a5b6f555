# Gives a disk's backend requests that no front end would make, then asks whether it still serves.
#
# What is random is made from a seed, so that a run can be repeated. Operations that write or that
# discard are left out, since a request that is wrong in most ways may still be done; so is the
# flush, which writes the segments that it has.

import random
import struct

from xenpv import abi
from xenpv.block import takeover
from xenpv.block.blkif import RESPONSE
from xenpv.block.connection import Connection, Pool
from xenpv.block.disks import HOME, numbers
from xenpv.block.negotiate import Limits
from xenpv.errors import XenError
from xenpv.loop import SECOND
from xenpv.xenbus import Device

SEED = 1
REQUESTS = 256
# Besides the read: one that is reserved, and some that nobody has.
HARMLESS = (abi.BLKIF_OP_READ, abi.BLKIF_OP_READ, 4, 7, 100, 255)


def wrong_request(id, good):
    """Make one, in most cases a wrong one.

    It has: operation, segments, device, id, sector; then for each segment a grant, the first and
    the last sector of the page. `good` is a grant of ours; the others that are tried are none,
    since a backend could write into any page that is really granted to it, as into xenstore's ring.
    """
    choose = random.choice
    op = choose(HARMLESS)
    segments = choose((0, 1, 1, 2, 11, 12, 255))
    sector = choose((0, 8, 1 << 32, (1 << 63) + 5))
    entry = struct.pack("<BBH4xQQ", op, segments, random.getrandbits(16), id, sector)
    for _ in range(abi.BLKIF_MAX_SEGMENTS_PER_REQUEST):
        grant = choose((good, good, good, 1 << 20, (1 << 32) - 1))
        entry += struct.pack("<IBB2x", grant, random.randrange(4), random.randrange(12))
    return entry


async def answers(connection, count):
    """Wait for answers. Returns how many there were with each status."""
    ring, seen = connection.requests.ring, {}
    until = loop.now() + 30 * SECOND
    while count:
        response = ring.take(struct.calcsize(RESPONSE))
        if response is not None:
            status = struct.unpack(RESPONSE, response)[2]
            seen[status] = seen.get(status, 0) + 1
            count -= 1
        elif loop.now() > until:
            raise XenError("%d requests are not answered" % count)
        elif not ring.rearm():
            await connection.kick.wait(loop.now() + SECOND)
    return seen


async def fuzz(connection, good):
    ring, view = connection.requests.ring, connection.requests.memory.ring.view
    total = {}
    for first in range(0, REQUESTS, ring.slots):
        for id in range(first, first + ring.slots):
            entry, at = wrong_request(id, good), ring.slot()
            view[at : at + len(entry)] = entry
        if ring.push():
            evtchn.send(connection.port)
        for status, count in (await answers(connection, ring.slots)).items():
            total[status] = total.get(status, 0) + count
    return total


random.seed(SEED)
(number, *_) = await numbers(store)
device = Device(store, loop, "%s/%d" % (HOME, number))
await device.find()
device.allow(30 * SECOND)
await takeover.end_connection(device)
await device.begin()
connection = Connection(loop, grants, device, Pool(0), Limits(1, 32, 11))
await connection.connect()
# A page for what a request that happens to be right reads, lent to the backend.
page, refs = hw.alloc_pages(1), hw.alloc_pages(1)
lent = grants.lend(refs, 1, device.backend_id, page // abi.PAGE_SIZE, False)
try:
    seen = await fuzz(connection, hw.rd32(refs))
    for status in sorted(seen):
        print("status %d: %d answers" % (status, seen[status]))
except XenError as error:
    # A backend may also leave a front end that is out of its mind. That is no fault of it.
    print("the backend has given up: %s" % error)
is_there = await device.backend_state() == abi.XenbusStateConnected
print("the backend is %s" % ("connected" if is_there else "gone"))
await device.close()
connection.let_go()
if lent.end(refs, 1):
    print("the backend still has the page mapped")

# A front end in its right mind is served all the same.
print("then a read gives %d bytes" % len(await disk.read(0, 4096)))
await disk.close()
