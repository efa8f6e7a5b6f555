"""The keys that both ends of a disk write in xenstore, as tables.

Used by the device. The rules: of a front end's keys, only the ring's and the event channel's must
be there; a value that means nothing, or that asks for more than was offered, is refused with its
key; of both ends' maxima of requests the lesser counts; both schemes for naming a ring's pages are
understood, and an order of 0 beside one `ring-ref` is accepted.
Source: xen/include/public/io/blkif.h; FreeBSD sys/dev/xen/blkback for max-ring-pages and the like.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xenpv import abi
from xenpv.block.blkif import LAYOUTS, SECTOR, X86_64, Layout
from xenpv.block.negotiate import MAXIMA, agree
from xenpv.block.ring import PAGES_MAX, slots
from xenpv.text import decimal

from .ports import BackendStore
from .request import INDIRECT_SEGMENTS
from .sink import Sink

RING_ORDER_MAX = PAGES_MAX.bit_length() - 1
PORT_MAX = 1 << 17  # of the FIFO interface
REF_MAX = 0xFFFFFFFF


class Unusable(Exception):
    """The front end's keys cannot be connected to; the message says which one and why."""


@dataclass(frozen=True)
class DiskProperties:
    """The properties of a disk: its sink's sizes, and the toolstack's choices."""

    sink: Sink
    readonly: bool
    removable: bool

    @property
    def info(self) -> int:
        """The flags VDISK_*."""
        return abi.VDISK_READONLY * self.readonly | abi.VDISK_REMOVABLE * self.removable


# Our own values of the maxima that both ends write.
OURS = {
    "max-requests": slots(PAGES_MAX, X86_64.stride),
    "max-request-segments": INDIRECT_SEGMENTS,
    "max-request-size": INDIRECT_SEGMENTS * abi.PAGE_SIZE,
}
# Written before InitWait: what a front end must know to make its ring.
OFFERS = {
    "max-ring-page-order": RING_ORDER_MAX,
    "max-ring-pages": PAGES_MAX,
    **OURS,
    "feature-persistent": 1,
    "feature-max-indirect-segments": INDIRECT_SEGMENTS,
}
# Written before Connected, from the disk and the bytes of the front end's sectors. None: no key.
PROPERTIES: dict[str, Callable[[DiskProperties, int], int | None]] = {
    "sectors": lambda disk, sector: disk.sink.size // sector,
    "sector-size": lambda disk, sector: disk.sink.sector_size,
    "physical-sector-size": lambda disk, sector: disk.sink.physical,
    "info": lambda disk, sector: disk.info,
    "feature-flush-cache": lambda disk, sector: 1,
    "feature-barrier": lambda disk, sector: 1,
    "feature-discard": lambda disk, sector: int(disk.sink.granularity > 0 and not disk.readonly),
    "discard-granularity": lambda disk, sector: disk.sink.granularity or None,
    "discard-alignment": lambda disk, sector: 0 if disk.sink.granularity else None,
    "discard-secure": lambda disk, sector: 0 if disk.sink.granularity else None,
}
# A front end's keys: the value of one that is absent (None: it must be there), the least and the
# largest of one that is not.
FRONT: dict[str, tuple[int | None, int, int]] = {
    "event-channel": (None, 0, PORT_MAX),
    "ring-page-order": (-1, 0, RING_ORDER_MAX),
    "num-ring-pages": (0, 0, PAGES_MAX),
    "feature-persistent": (0, 0, 1),
    "feature-large-sector-size": (0, 0, 1),
    "multi-queue-num-queues": (1, 0, 1),
    **{key: (default, least, most) for key, default, least, most in MAXIMA},
}


def properties(disk: DiskProperties, sector: int) -> dict[str, str]:
    """Return the keys that describe a disk to a front end whose sectors have `sector` bytes."""
    found = ((key, value(disk, sector)) for key, value in PROPERTIES.items())
    return {key: str(value) for key, value in found if value is not None}


@dataclass(frozen=True)
class Front:
    """The front end's side of a connection.

    refs: grants of the ring's pages; persistent: it lends frames for as long as it is connected;
    large_sectors: it counts everything in sectors of the disk's sector-size, not of 512 bytes;
    maxima: the agreed ones, by the keys of MAXIMA; reduced: text on those that are less than
    our own.
    """

    layout: Layout
    port: int
    refs: tuple[int, ...]
    persistent: bool
    large_sectors: bool
    maxima: dict[str, int]
    reduced: list[str]

    def sector(self, sink: Sink) -> int:
        """Return the bytes of a sector as this front end counts them."""
        return sink.sector_size if self.large_sectors else SECTOR


def read_keys(store: BackendStore, path: str) -> dict[str, str]:
    """Read all keys of a front end that a connection depends on, as they are."""
    names = [*FRONT, "protocol", "ring-ref", "ring-ref0"]
    keys = {name: value for name in names if (value := store.read(f"{path}/{name}")) is not None}
    if "ring-ref0" in keys:
        for i in range(1, PAGES_MAX):
            value = store.read(f"{path}/ring-ref{i}")
            if value is None:
                break
            keys[f"ring-ref{i}"] = value
    return keys


def parse(keys: dict[str, str]) -> Front:
    """Check what read_keys() found. Raises Unusable."""
    values = {name: _number(keys, name, *rule) for name, rule in FRONT.items()}
    protocol = keys.get("protocol", X86_64.protocol)
    if protocol not in LAYOUTS:
        raise Unusable(f"protocol is {protocol[:40]!r}; {' or '.join(LAYOUTS)} expected")
    pages = max(values["num-ring-pages"], 1)
    if values["ring-page-order"] >= 0:
        pages = 1 << values["ring-page-order"]
    if pages & (pages - 1):
        raise Unusable(f"num-ring-pages is {pages}; a power of two expected")
    names = [f"ring-ref{i}" for i in range(pages)]
    if pages == 1:
        usual = names if values["ring-page-order"] == 0 else ["ring-ref"]
        other = ["ring-ref"] if usual is names else names
        names = other if usual[0] not in keys and other[0] in keys else usual
    refs = tuple(_number(keys, name, None, 0, REF_MAX) for name in names)
    if len(set(refs)) != pages:
        raise Unusable(f"the ring's pages {', '.join(map(str, refs))} are not different ones")
    maxima, reduced = agree(OURS, values)
    return Front(
        LAYOUTS[protocol],
        values["event-channel"],
        refs,
        bool(values["feature-persistent"]),
        bool(values["feature-large-sector-size"]),
        maxima,
        reduced,
    )


def _number(keys: dict[str, str], name: str, default: int | None, least: int, most: int) -> int:
    text = keys.get(name)
    if text is None:
        if default is None:
            raise Unusable(f"{name} is missing")
        return default
    number: int | None = decimal(text, least, most)
    if number is None:
        raise Unusable(f"{name} is {text[:40]!r}; a number from {least} to {most} expected")
    return number
