"""Negotiation of a block device as data: the keys of both ends, and the limits they agree on.

Used by the front end; backends use MAXIMA and agree(). Every key of a backend is optional but
`sectors`. An absent key has a default; so has an optional key whose value means nothing, and a note
says so. The lesser of both ends' limits counts, with a note where that reduced ours. Some backends
write keys only once they are connected, so PROPERTIES are read then. feature-large-sector-size is
not written: sectors are 512 bytes whatever the sector-size.
Source: xen/include/public/io/blkif.h; Linux drivers/block/xen-blkback/xenbus.c and FreeBSD
sys/dev/xen/blkback for what they write and when.
"""

from .. import abi
from ..errors import BackendError
from ..text import decimal
from .blkif import PAGE_SECTORS, SECTOR
from .ring import PAGES_MAX

U32 = 0xFFFFFFFF
# Keys that each end writes about itself, with one meaning: how many requests it has in flight at
# most, how many frames and how many bytes one of them refers to. The value where a key is absent,
# and the bounds of one that is not; 0 limits nothing. Source: blkif.h, "Request Transport
# Parameters", from FreeBSD.
MAXIMA = (
    ("max-requests", 0, 1, U32),
    ("max-request-segments", 0, 1, U32),
    ("max-request-size", 0, abi.PAGE_SIZE, U32),
)
# The backend's keys that are read before the ring is made, as rows of the same form.
BEFORE = (
    ("max-ring-page-order", -1, 0, U32),
    ("max-ring-pages", 0, 0, U32),
) + MAXIMA
# Those that are read when it is connected. Without a default, a key must be there.
PROPERTIES = (
    ("sectors", None, 0, 1 << 54),
    ("sector-size", SECTOR, SECTOR, abi.PAGE_SIZE),
    ("physical-sector-size", 0, 0, U32),
    ("info", 0, 0, U32),
    ("feature-max-indirect-segments", 0, 0, U32),
    ("feature-persistent", 0, 0, 1),
    ("feature-flush-cache", 0, 0, 1),
    ("feature-barrier", 0, 0, 1),
    ("feature-discard", 0, 0, 1),
    ("discard-granularity", 0, 0, U32),
    ("discard-alignment", 0, 0, U32),
)
# Keys without which nothing on the disk can be found: their values must be understood.
STRICT = ("sectors", "sector-size")
DIRECT = abi.BLKIF_MAX_SEGMENTS_PER_REQUEST


async def read(device, table):
    """Read the backend's values of a table's keys, all asked for at once.

    Args:
        device: xenbus.Device, found.
        table: BEFORE or PROPERTIES.

    Returns: (a dictionary from key to number, notes on values that were not understood).

    Raises: BackendError, XenstoreError, Timeout.
    """
    texts = await device.store.loop.gather([device.backend_text(row[0]) for row in table])
    found = {}
    notes = []
    for (key, default, least, most), text in zip(table, texts):
        value = decimal(text, least, most)
        found[key] = default if value is None else value
        if value is not None:
            continue
        if default is None or (text and key in STRICT):
            raise BackendError(
                "%s: backend's %s is '%s'; a number from %d to %d expected"
                % (device.path, key, text[:40], least, most)
            )
        if text:
            notes.append("%s is '%s', taken as absent" % (key, text[:40]))
    return found, notes


def agree(ours, theirs):
    """Take the lesser of both ends' maxima.

    Args:
        ours: a dictionary with a number for each key of MAXIMA.
        theirs: likewise, of the other end; 0 limits nothing.

    Returns: (a dictionary like ours, notes such as "max-requests 128 reduced to 64").
    """
    agreed = {}
    notes = []
    for key, _, _, _ in MAXIMA:
        agreed[key] = ours[key]
        if theirs[key] and theirs[key] < ours[key]:
            agreed[key] = theirs[key]
            notes.append("%s %d reduced to %d" % (key, ours[key], theirs[key]))
    return agreed, notes


class Limits:
    """The limits of a connection: first our own, after the agreements those of both ends.

    Args:
        pages: of the ring.
        requests: in flight.
        segments: frames of one request.

    Attributes: pages, requests, segments; notes, a list of lines that say what was reduced.
    """

    def __init__(self, pages, requests, segments):
        self.pages = pages
        self.requests = requests
        self.segments = segments
        self.notes = []

    def again(self):
        """Make a copy of these for another agreement, without notes."""
        return Limits(self.pages, self.requests, self.segments)

    def lower(self, name, value):
        """Use no more than `value` of pages, requests or segments."""
        ours = getattr(self, name)
        if value < ours:
            self.notes.append("%s %d reduced to %d" % (name, ours, value))
            setattr(self, name, value)

    def maxima(self):
        """Give what we write of ourselves: a dictionary with a number for each key of MAXIMA."""
        return {
            "max-requests": self.requests,
            "max-request-segments": self.segments,
            "max-request-size": self.segments * abi.PAGE_SIZE,
        }

    def agree_before(self, offered):
        """Lower these to what the backend says before the ring is made, a dictionary of BEFORE."""
        order = offered["max-ring-page-order"]
        pages = max(offered["max-ring-pages"], 1)
        if order >= 0:
            pages = max(pages, 1 << min(order, 8))
        while pages & (pages - 1):
            pages &= pages - 1
        self.lower("pages", min(pages, PAGES_MAX))
        agreed, notes = agree(self.maxima(), offered)
        self.notes += notes
        self.requests = agreed["max-requests"]
        whole = agreed["max-request-size"] // abi.PAGE_SIZE
        self.segments = min(agreed["max-request-segments"], whole)

    def agree_connected(self, found):
        """Lower these to what the connected backend says, a dictionary of PROPERTIES."""
        self.lower("segments", max(found["feature-max-indirect-segments"], DIRECT))

    def sectors(self):
        """Give the most sectors of one request."""
        return self.segments * PAGE_SECTORS


class Properties:
    """The properties of a disk, as its backend describes them.

    Args:
        found: a dictionary of PROPERTIES.
        mode: the backend's `mode`, "r" or another text.
        path: the device's, for messages.

    Attributes: sectors, of 512 bytes; sector_size and physical_size, bytes, 512 to 4096; read_only;
    removable; flushes, a list of the operations that put earlier writes on stable storage, the
    better one first; discards, whether DISCARD is offered; persistent, whether the backend keeps
    grants mapped.

    Raises: BackendError for a sector-size that is none.
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
        # The size of an extent that can be discarded, and where the first one begins, in sectors.
        self._extent = max(found["discard-granularity"] // size, 1) * unit
        self._first = found["discard-alignment"] // size * unit

    def extents(self, sector, count):
        """Give the whole extents among `count` sectors from `sector` on, as (sector, count)."""
        first = sector + (self._first - sector) % self._extent
        end = sector + count
        end -= (end - self._first) % self._extent
        return first, max(end - first, 0)


def ring_keys(offered, refs):
    """Give the keys that name a ring's pages to the backend.

    Linux's scheme, with an order, is used where the backend offers it, else the one with a number
    of pages. A ring of one page is named without either: an order, even 0, makes Linux look for
    ring-ref0.

    Args:
        offered: a dictionary of BEFORE.
        refs: the grant references of the pages, in order.

    Returns: a list of (key, value).
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
