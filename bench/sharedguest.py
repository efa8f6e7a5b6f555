"""A front end in a process of its own, its memory shared with the backend's process.

Used by bench/neighbours.py in place of guests: the ports of pvdump.blkback.ports for it, with the
threads of dom0.py, and what a front end does, by xenstore as on a real Xen. A grant reference is
the number of a page; an event channel is a pair of eventfds.
"""

from __future__ import annotations

import mmap
import os
import struct
import threading
from collections.abc import Sequence

from pvdump.blkback import dom0
from pvdump.blkback.attach import number_of
from pvdump.blkback.backendstore import BackendStore
from pvdump.blkback.paths import backend_path
from pvdump.blkback.ringmemory import RingMemory
from pvdump.blkback.timers import Timers
from pvdump.xenstore.store import Store
from xenpv import abi
from xenpv.abi import PAGE_SIZE
from xenpv.block.blkif import RESPONSE, SECTOR, SEGMENT, X86_64
from xenpv.block.ring import FrontRing

VDEV = "xvdb"
RING, COUNT, DATA = 0, 1, 2  # pages: of the ring, of the count, the first of the data
DATA_PAGES = 32
PAGE_SECTORS = PAGE_SIZE // SECTOR
APART = 5  # pages between two requests, so that none is joined to the next


class Guest:
    """A guest whose memory and event channel several processes share.

    Args:
        domid: its number.
        sectors: its disk's size, in sectors of 512 bytes.
    """

    def __init__(self, domid: int, sectors: int) -> None:
        self.domid, self.sectors = domid, sectors
        self.view = memoryview(mmap.mmap(-1, (DATA + DATA_PAGES) * PAGE_SIZE))
        self.kick, self.told = os.eventfd(1), os.eventfd(0)
        self._count = self.frames([COUNT]).slices(0, PAGE_SIZE)[0].cast("Q")
        self._front = f"/local/domain/{domid}/device/vbd/{number_of(VDEV)}"
        self._back = backend_path(domid, number_of(VDEV))

    @property
    def count(self) -> int:
        """Requests that were answered, or connections that were broken; for any process."""
        return self._count[0]

    def frames(self, refs: Sequence[int]) -> MappedFrames:
        """Return the frames of these grants; a grant's number is its frame's."""
        return MappedFrames([self.view[ref * PAGE_SIZE : (ref + 1) * PAGE_SIZE] for ref in refs])

    # In its own process.

    def behave(self, path: str) -> None:
        """Write pages for ever, a ring full of them at a time."""
        with Store(path) as store:
            ring = self._connect(store)
            page, pages = 0, self.sectors // PAGE_SECTORS
            while True:
                while ring.free():
                    page = (page + APART) % pages
                    at = ring.slot()
                    entry = X86_64.request(abi.BLKIF_OP_WRITE, 1, page, page * PAGE_SECTORS)
                    entry += struct.pack(SEGMENT, DATA + page % DATA_PAGES, 0, PAGE_SECTORS - 1)
                    self.view[at : at + len(entry)] = entry
                if ring.push():
                    os.eventfd_write(self.kick, 1)
                self._collect(ring)

    def _collect(self, ring: FrontRing) -> None:
        """Wait for an answer and take all that are there."""
        size = struct.calcsize(RESPONSE)
        while ring.take(size) is None:
            if not ring.rearm():
                os.eventfd_read(self.told)
        self._count[0] += 1
        while ring.take(size) is not None:
            self._count[0] += 1

    def corrupt(self, path: str) -> None:
        """Break the ring of each connection at once, for ever."""
        with Store(path) as store:
            while True:
                ring = self._connect(store)
                ring.memory.wr32(abi.SRING_REQ_PROD, 1 << 30)
                os.eventfd_write(self.kick, 1)
                self._until(store, abi.XenbusStateClosing)
                self._count[0] += 1
                store.write(f"{self._front}/state", str(abi.XenbusStateClosed))
                self._until(store, abi.XenbusStateClosed)
                store.write(f"{self._front}/state", str(abi.XenbusStateInitialising))

    def _connect(self, store: Store) -> FrontRing:
        self._until(store, abi.XenbusStateInitWait)
        ring = FrontRing(RingMemory(self.frames([RING]), 1), 1, X86_64.stride, "front")
        keys = {"ring-ref": RING, "event-channel": 1, "feature-persistent": 1}
        for key, value in keys.items():
            store.write(f"{self._front}/{key}", str(value))
        store.write(f"{self._front}/state", str(abi.XenbusStateInitialised))
        self._until(store, abi.XenbusStateConnected)
        store.write(f"{self._front}/state", str(abi.XenbusStateConnected))
        return ring

    def _until(self, store: Store, state: int) -> None:
        """Wait for a state of the backend."""
        changed = threading.Semaphore(0)
        path = f"{self._back}/state"
        watch = store.watch(path, lambda path, token: changed.release())
        while BackendStore(store).read(path) != str(state):
            changed.acquire()
        watch.close()


class MappedFrames:
    """Frames of a shared guest, as ports.MappedFrames."""

    def __init__(self, pages: list[memoryview]) -> None:
        self._pages = pages

    def slices(self, start: int, end: int) -> list[memoryview]:
        """Return the bytes from start to end, a piece a frame."""
        found = []
        while start < end:
            index, at = divmod(start, PAGE_SIZE)
            stop = min(end - index * PAGE_SIZE, PAGE_SIZE)
            found.append(self._pages[index][at:stop])
            start += stop - at
        return found

    def unmap(self) -> None:
        """Forget the frames."""
        self._pages = []


class Grants:
    """The grants of a shared guest, as ports.Grants."""

    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def map(self, refs: Sequence[int], writable: bool) -> MappedFrames:
        """Return the frames; none is refused."""
        return self._guest.frames(refs)

    def close(self) -> None:
        """Do nothing."""


class Channel:
    """The backend's end of a shared guest's event channel.

    As in Xen, an event is pending when it is bound.
    """

    def __init__(self, guest: Guest) -> None:
        self._guest = guest
        self.fd = guest.kick
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        os.eventfd_write(self.fd, 1)

    def take(self) -> None:
        """Take the pending event."""
        os.eventfd_read(self.fd)

    def notify(self) -> None:
        """Send the guest an event."""
        os.eventfd_write(self._guest.told, 1)

    def wake(self) -> None:
        """Wake the worker as an event would."""
        os.eventfd_write(self.fd, 1)

    def close(self) -> None:
        """Close our end."""
        os.close(self.bell)


class Xen(dom0.Xen):
    """Real threads that serve shared guests.

    Args:
        guests: by domid.
    """

    def __init__(self, guests: dict[int, Guest]) -> None:
        self.threads = set()
        self._timers = Timers()
        self._guests = guests

    def grants(self, domid: int) -> Grants:  # type: ignore[override]
        """Return a guest's grants."""
        return Grants(self._guests[domid])

    def bind(self, domid: int, port: int) -> Channel:  # type: ignore[override]
        """Return a channel to a guest; it has only one."""
        return Channel(self._guests[domid])
