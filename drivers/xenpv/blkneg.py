"""What a block backend offers and what is made of it: negotiation as data.

Used by the front end. Every key is optional; what is absent has a default, what is over a bound is
refused, and what is agreed on is the lesser of both sides' limits, with a note where that reduced
ours. Some backends write keys only once they are connected, so properties are read twice.
Source: xen/include/public/io/blkif.h; Linux drivers/block/xen-blkback/xenbus.c and FreeBSD
sys/dev/xen/blkback for what they write and when.
"""

from . import abi
from .blkif import PAGE_SECTORS, SECTOR
from .blkring import PAGES_MAX
from .errors import BackendError

# Key, what stands when it is absent (None: it must be there), the most it may say.
BEFORE = (
    ("max-ring-page-order", -1, 1 << 32),
    ("max-ring-pages", 0, 1 << 32),
    ("max-requests", 0, 1 << 32),
)
PROPERTIES = (
    ("sectors", None, 1 << 54),
    ("sector-size", SECTOR, 1 << 20),
    ("physical-sector-size", 0, 1 << 30),
    ("info", 0, 0xFFFF),
    ("max-request-segments", 0, 1 << 32),
    ("max-request-size", 0, 1 << 32),
    ("feature-max-indirect-segments", 0, 1 << 32),
    ("feature-persistent", 0, 1),
    ("feature-flush-cache", 0, 1),
    ("feature-barrier", 0, 1),
    ("feature-discard", 0, 1),
    ("discard-granularity", SECTOR, 1 << 40),
    ("discard-alignment", 0, 1 << 40),
)
DIRECT = abi.BLKIF_MAX_SEGMENTS_PER_REQUEST


async def read(device, table):
    """The values of a table's keys, all asked for at once: a dictionary."""
    values = await device.store.loop.gather(
        [device.backend_int(key, default) for key, default, _ in table]
    )
    found = {}
    for (key, _, most), value in zip(table, values):
        if value > most:
            raise BackendError("%s: backend's %s is %d, over %d" % (device.path, key, value, most))
        found[key] = value
    return found


class Limits:
    """What we would use, and after agree() what both sides can.

    pages: of the ring; requests: in flight; segments: of a request; notes: what was reduced.
    """

    def __init__(self, pages, requests, segments):
        self.pages = pages
        self.requests = requests
        self.segments = segments
        self.notes = []

    def _lower(self, name, value):
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
        self._lower("pages", min(pages, PAGES_MAX))
        if offered["max-requests"]:
            self._lower("requests", offered["max-requests"])

    def agree_requests(self, offered):
        """Take what the backend said of requests into account."""
        most = max(offered["feature-max-indirect-segments"], DIRECT)
        if offered["max-request-size"]:
            most = min(most, max(offered["max-request-size"] // abi.PAGE_SIZE, 1))
        direct = offered["max-request-segments"]
        if direct and direct < DIRECT:
            most = min(most, direct)
        self._lower("segments", most)

    def sectors(self):
        """The most sectors of one request."""
        return self.segments * PAGE_SECTORS


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
