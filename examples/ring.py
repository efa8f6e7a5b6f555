# Fills the ring of a disk to its last entry, then tells the backend once, and looks how it answers.
#
# BlkFront, which `disk` uses, does all of this by itself. Here its parts are used one by one:
# a Connection makes the ring and agrees with the backend, Requests puts entries into it.

from xenpv import abi
from xenpv.block import takeover
from xenpv.block.blkif import PAGE_SECTORS
from xenpv.block.connection import Connection, Pool
from xenpv.block.disks import HOME, numbers
from xenpv.block.negotiate import Limits
from xenpv.block.requests import Part
from xenpv.loop import SECOND
from xenpv.xenbus import Device

(number, *_) = await numbers(store)
device = Device(store, loop, "%s/%d" % (HOME, number))
await device.find()
device.allow(30 * SECOND)
await takeover.end_connection(device)
await device.begin()
# One page of ring, as many requests as fit, one page of data in each.
connection = Connection(loop, grants, device, Pool(0), Limits(1, 1024, 1))
await connection.connect()
requests = connection.requests
ring = requests.ring
print("a ring of one page has %d entries" % ring.slots)

# All read the same frame: what is read does not matter. The backend sees nothing yet.
frame = hw.alloc_pages(1) // abi.PAGE_SIZE
while ring.free():
    requests.submit(Part(abi.BLKIF_OP_READ, 0, frame, PAGE_SECTORS))
print("%d requests stand in it, %d entries are free" % (requests.in_flight, ring.free()))

# The producer's index moves, by one store, over all of them.
began = loop.now()
if ring.push():
    evtchn.send(connection.port)
wakes = []
while requests.in_flight:
    # Ask for an event at the next answer; one that is there already needs none.
    if not ring.rearm():
        await connection.kick.wait(loop.now() + SECOND)
    count = 0
    answer = requests.take()
    while answer is not None:
        assert answer[1] == abi.BLKIF_RSP_OKAY, answer[1]
        count += 1
        answer = requests.take()
    wakes.append(count)
took = (loop.now() - began) // 1000
print("answered after %d us, at each look: %s" % (took, " ".join(str(n) for n in wakes if n)))

await device.close()
connection.let_go()
