"""Whether a backend counts sectors as we do, found out by writing and reading back.

Used before the first real write to a disk whose sector-size is not 512: there some backends count
sectors, or the parts of a frame, in units of sector-size, and would put data elsewhere.
Source: xen/include/public/io/blkif.h, notes on sector-size and feature-large-sector-size.
"""

import hw

from .. import abi
from ..errors import BackendError
from .blkif import PAGE_SECTORS


async def probe(disk, sector):
    """Write two pages from `sector` on and read the second one back from where it ought to be.

    disk: BlkFront. Raises BackendError when it is not there.
    """
    pages = hw.alloc_pages(2)
    gfn = pages // abi.PAGE_SIZE
    mark = ("pvdump probe %x " % disk.loop.now()).encode()
    hw.mem(pages + abi.PAGE_SIZE, len(mark))[:] = mark
    try:
        await disk.write(sector, gfn, 2 * PAGE_SECTORS)
        await disk.drain()
        await disk.read(sector + PAGE_SECTORS, gfn, PAGE_SECTORS)
        await disk.drain()
        told = bytes(hw.mem(pages, len(mark))) == mark
    except BackendError:
        told = False
    if not told:
        raise BackendError(
            "%s: its backend does not count sectors in units of 512 bytes, as the protocol "
            "asks; sector-size is %d" % (disk.device.path, disk.sector_size)
        )
