"""The probe of a backend's sector unit: two pages are written, and the second is read back.

Used before the first real write to a disk whose sector-size is not 512: there some backends count
sectors, or the parts of a frame, in units of sector-size, and would put data elsewhere.
Source: xen/include/public/io/blkif.h, notes on sector-size and feature-large-sector-size.
"""

import hw

from .. import abi
from ..errors import BackendError
from .blkif import PAGE_SECTORS


async def probe(disk, sector):
    """Write two pages from `sector` on and read the second one back from where it should be.

    Args:
        disk: BlkFront, connected.
        sector: the first of 16 sectors whose content is lost.

    Raises: BackendError when it is not there; Timeout.
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
        is_there = bytes(hw.mem(pages, len(mark))) == mark
    except BackendError:
        is_there = False
    if not is_there:
        raise BackendError(
            "%s: its backend does not count sectors in units of 512 bytes, as the protocol "
            "asks; sector-size is %d" % (disk.device.path, disk.sector_size)
        )
