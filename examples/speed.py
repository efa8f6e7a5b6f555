# Measures how fast a disk is read: in requests of several sizes, one at a time and many at once.
#
# Nothing is written. There are no floats here, so MiB/s are counted in tenths.

from xenpv.block.blkif import SECTOR

PAGE = 4096
MIB = 1 << 20
COUNT, TOTAL = 512, 16 * MIB  # requests and bytes of a measurement, at most
MEMORY = 64 * PAGE  # where the data goes, again and again
memory = hw.alloc_pages(MEMORY // PAGE)


async def measure(front, size, at_once):
    """Read from the disk's begin on, in requests of `size`. Returns tenths of MiB/s."""
    total = min(COUNT * size, TOTAL, front.sectors * SECTOR // size * size)
    began = loop.now()
    for at in range(0, total, size):
        # read() returns when the request is in the ring, drain() when all have been answered.
        frame = (memory + at % MEMORY) // PAGE
        await front.read(at // SECTOR, frame, size // SECTOR)
        if not at_once:
            await front.drain()
    await front.drain()
    return total * 10 * 10**9 // MIB // (loop.now() - began)


front = await disk.connect()
limits = front.limits
print("%s: %d requests of %d KiB in flight" % (disk, limits.requests, limits.segments * 4))
for size in (4096, 65536, MEMORY):
    for at_once in (False, True):
        speed = await measure(front, size, at_once)
        how = "at once" if at_once else "one by one"
        print("%4d KiB, %-10s  %5d.%d MiB/s" % (size >> 10, how, speed // 10, speed % 10))
await disk.close()
