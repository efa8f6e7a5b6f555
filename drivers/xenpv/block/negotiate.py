"""What a block backend offers and what is made of it: negotiation as data.

Used by the front end. Every key is optional but `sectors`; what is absent has a default, and so has
an optional key with a value that means nothing, which is noted; what is agreed on is the lesser of
both sides' limits, with a note where that reduced ours. Some backends write keys only once they are
connected, so properties are read then. feature-large-sector-size is not written: sectors are 512
bytes whatever the sector-size.
Source: xen/include/public/io/blkif.h; Linux drivers/block/xen-blkback/xenbus.c and FreeBSD
sys/dev/xen/blkback for what they write and when.
"""

from .. import abi
from ..errors import BackendError
from ..text import decimal
from .blkif import PAGE_SECTORS, SECTOR
from .ring import PAGES_MAX

U32 = 0xFFFFFFFF
# The backend's keys: what stands when it is absent, the least and the most it can say.
BEFORE = (
    ("max-ring-page-order", -1, 0, U32),
    ("max-ring-pages", 0, 0, U32),
    ("max-requests", 0, 0, U32),
)
PROPERTIES = (
    ("sectors", None, 0, 1 << 54),
    ("sector-size", SECTOR, SECTOR, abi.PAGE_SIZE),
    ("physical-sector-size", 0, 0, U32),
    ("info", 0, 0, U32),
    ("max-request-segments", 0, 0, U32),
    ("max-request-size", 0, 0, U32),
    ("feature-max-indirect-segments", 0, 0, U32),
    ("feature-persistent", 0, 0, 1),
    ("feature-flush-cache", 0, 0, 1),
    ("feature-barrier", 0, 0, 1),
    ("feature-discard", 0, 0, 1),
    ("discard-granularity", 0, 0, U32),
    ("discard-alignment", 0, 0, U32),
)
# Without these nothing on the disk can be found: what they say must be understood.
STRICT = ("sectors", "sector-size")
DIRECT = abi.BLKIF_MAX_SEGMENTS_PER_REQUEST


async def read(device, table):
    """The values of a table's keys, all asked for at once.

    Returns (a dictionary, notes on what was not understood). Raises BackendError.
    """
    texts = await device.store.loop.gather([device.backend_text(row[0]) for row in table])
    found = {}
    notes = []
    for (key, default, least, most), text in zip(table, texts):
        found[key] = decimal(text, least, most)
        if found[key] is not None:
            continue
        found[key] = default
        if default is None or (text and key in STRICT):
            raise BackendError(
                "%s: backend's %s is '%s'; a number from %d to %d expected"
                % (device.path, key, text[:40], least, most)
            )
        if text:
            notes.append("%s is '%s', taken as absent" % (key, text[:40]))
    return found, notes


class Limits:
    """What we would use, and after the agreements what both sides can.

    pages: of the ring; requests: in flight; segments: of a request; notes: what was reduced.
    """

    def __init__(self, pages, requests, segments):
        self.pages = pages
        self.requests = requests
        self.segments = segments
        self.notes = []

    def again(self):
        """What we would use, for another agreement."""
        return Limits(self.pages, self.requests, self.segments)

    def lower(self, name, value):
        """Use no more than `value` of pages, requests or segments."""
        ours = getattr(self, name)
        if value < ours:
            self.notes.append("%s %d reduced to %d" % (name, ours, value))
            setattr(self, name, value)

    def agree_ring(self, offered):
        """Take what the backend said of its rings into account."""
        order = offered["max-ring-page-order"]
        pages = max(offered["max-ring-pages"], 1)
        if order >= 0:
            pages = max(pages, 1 << min(order, 8))
        while pages & (pages - 1):
            pages &= pages - 1
        self.lower("pages", min(pages, PAGES_MAX))
        if offered["max-requests"]:
            self.lower("requests", offered["max-requests"])

    def agree_requests(self, offered):
        """Take what the backend said of requests into account."""
        most = max(offered["feature-max-indirect-segments"], DIRECT)
        if offered["max-request-size"]:
            most = min(most, max(offered["max-request-size"] // abi.PAGE_SIZE, 1))
        direct = offered["max-request-segments"]
        if direct and direct < DIRECT:
            most = min(most, direct)
        self.lower("segments", most)

    def sectors(self):
        """The most sectors of one request."""
        return self.segments * PAGE_SECTORS


class Properties:
    """What a disk is, as its backend describes it.

    sectors: of 512 bytes; sector_size, physical_size: bytes, 512 to 4096; flushes: operations that
    make what was written last, the better one first; persistent: its backend keeps grants mapped.
    """

    def __init__(self, found, mode, path):
        self.sectors = found["sectors"]
        self.sector_size = size = found["sector-size"]
        if size & (size - 1):
            raise BackendError(
                "%s: sector-size is %d; 512, 1024, 2048 or 4096 expected" % (path, size)
            )
        physical = found["physical-sector-size"]
        self.physical_size = physical if physical in (512, 1024, 2048, 4096) else size
        self.physical_size = max(self.physical_size, size)
        self.read_only = bool(found["info"] & abi.VDISK_READONLY) or mode == "r"
        self.removable = bool(found["info"] & abi.VDISK_REMOVABLE)
        self.flushes = []
        if found["feature-flush-cache"]:
            self.flushes.append(abi.BLKIF_OP_FLUSH_DISKCACHE)
        if found["feature-barrier"]:
            self.flushes.append(abi.BLKIF_OP_WRITE_BARRIER)
        self.discards = found["feature-discard"] == 1
        self.persistent = found["feature-persistent"] == 1
        unit = size // SECTOR
        # Extents that can be discarded, in sectors, and where the first one begins.
        self._extent = max(found["discard-granularity"] // size, 1) * unit
        self._first = found["discard-alignment"] // size * unit

    def extents(self, sector, count):
        """The whole extents in `count` sectors from `sector` on, as (sector, count)."""
        first = sector + (self._first - sector) % self._extent
        end = sector + count
        end -= (end - self._first) % self._extent
        return first, max(end - first, 0)


def ring_keys(offered, refs):
    """The keys that name a ring's pages to the backend: a list of (key, value).

    Linux's scheme (an order, even 0, makes it look for ring-ref0) where its key is offered, else
    the one with a number of pages; one page is named as it always was.
    """
    if len(refs) == 1:
        return [("ring-ref", refs[0])]
    keys = [("ring-ref%d" % i, ref) for i, ref in enumerate(refs)]
    if offered["max-ring-page-order"] >= 0:
        order = 0
        while 1 << order < len(refs):
            order += 1
        return [("ring-page-order", order)] + keys
    return [("num-ring-pages", len(refs))] + keys
