"""The guest's grant table, versions 1 and 2, and the other side's use of it.

Used by the hypercalls for the guest (size, frames, version), by backends, who map and unmap, and by
gntcopy. The entries live where the guest mapped the frames, in its own RAM; Xen reads each once
when a grant is first used, and marks it in use for as long as it is: in the entry's own flags
(version 1) or in a status frame (version 2).
Source: Xen public/grant_table.h; xen/common/grant_table.c.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from errno import EBUSY, EINVAL, ENOSYS, ERANGE
from typing import TYPE_CHECKING

from xenpv import abi

from .evtchn import XenRefuses
from .public import GNTST_bad_gntref, GNTST_general_error, GTF_sub_page

if TYPE_CHECKING:
    from .machine import Machine
    from .physmap import XenPage

# Flags, domain, frame.
ENTRIES = {1: struct.Struct("<HHI"), 2: struct.Struct("<HH4xQ")}
STATUSES = abi.PAGE_SIZE // 2  # in a status frame
IN_USE = abi.GTF_reading | abi.GTF_writing


class GrantRefused(Exception):
    """A grant that cannot be used; the message says what is wrong with it. status: GNTST_*."""

    def __init__(self, message: str, status: int = GNTST_general_error) -> None:
        super().__init__(message)
        self.status = status


class Active:
    """A grant in use, as Xen remembers it whatever becomes of its entry.

    start, length: the part of the frame that is granted; users: who uses it, True who may write.
    """

    def __init__(self, domid: int, frame: int, start: int, length: int) -> None:
        self.domid = domid
        self.frame = frame
        self.start = start
        self.length = length
        self.users: list[bool] = []


class Mapping:
    """One frame of the guest, mapped. addr: its guest-physical address; view: its 4096 bytes."""

    def __init__(self, table: GrantTable, ref: int, frame: int, readonly: bool) -> None:
        self.table = table
        self.ref = ref
        self.readonly = readonly
        self.addr = frame * abi.PAGE_SIZE
        view = table.machine.page(frame)
        self.view = view.toreadonly() if readonly else view

    def unmap(self) -> None:
        """End the mapping."""
        self.table.unmapped(self)


class GrantTable:
    """The grant table of one machine.

    Args:
        machine: whose it is.
        frames, max_frames: number of its frames now, and at most.
        version, max_version: 1 or 2.
    """

    def __init__(
        self, machine: Machine, frames: int, max_frames: int, version: int, max_version: int
    ) -> None:
        self.machine = machine
        self.max_frames = max_frames
        self.max_version = max_version
        self.version = 1
        self.frames: list[XenPage] = [machine.new_page() for _ in range(frames)]
        self.status_frames: list[XenPage] = []
        self.active: dict[int, Active] = {}
        self.mappings: list[Mapping] = []
        self.set_version(version)

    # Frames.

    def _per_frame(self) -> int:
        return abi.PAGE_SIZE // ENTRIES[self.version].size

    def entries(self) -> int:
        """Return how many entries the table has now."""
        return len(self.frames) * self._per_frame()

    def grow(self, frames: int) -> None:
        """Have at least so many frames. Refuses more than max_frames."""
        if frames > self.max_frames:
            raise XenRefuses(EINVAL)
        while len(self.frames) < frames:
            self.frames.append(self.machine.new_page())
        while self.version == 2 and len(self.status_frames) * STATUSES < self.entries():
            self.status_frames.append(self.machine.new_page())

    def frame(self, idx: int) -> XenPage:
        """Return the frame of an index of XENMAPSPACE_grant_table; the table grows for it."""
        if self.version == 2 and idx & abi.XENMAPIDX_grant_table_status:
            idx &= ~abi.XENMAPIDX_grant_table_status
            if idx >= len(self.status_frames):
                self.grow((idx * STATUSES + STATUSES) // self._per_frame())
            return self.status_frames[idx]
        self.grow(idx + 1)
        return self.frames[idx]

    # Entries.

    def _at(self, ref: int) -> tuple[memoryview, int]:
        frame, index = divmod(ref, self._per_frame())
        return self.frames[frame].view, index * ENTRIES[self.version].size

    def entry(self, ref: int) -> tuple[int, int, int]:
        """Return (flags, domid, frame) of an entry, as it stands in the table."""
        flags, domid, frame = ENTRIES[self.version].unpack_from(*self._at(ref))
        return flags, domid, frame

    def set_entry(self, ref: int, flags: int, domid: int, frame: int) -> None:
        """Write an entry, as the toolstack writes the reserved ones and a kernel the others."""
        ENTRIES[self.version].pack_into(*self._at(ref), flags, domid, frame)

    def status(self, ref: int) -> int:
        """Return GTF_reading and GTF_writing of an entry."""
        view, at = self._status_at(ref)
        return struct.unpack_from("<H", view, at)[0] & IN_USE

    def _status_at(self, ref: int) -> tuple[memoryview, int]:
        if self.version == 1:
            return self._at(ref)
        return self.status_frames[ref // STATUSES].view, ref % STATUSES * 2

    def _mark(self, ref: int, clear: int, add: int) -> None:
        view, at = self._status_at(ref)
        (flags,) = struct.unpack_from("<H", view, at)
        struct.pack_into("<H", view, at, flags & ~clear | add)

    # Use by another domain.

    def acquire(self, ref: int, domid: int, readonly: bool, whole: bool) -> Active:
        """Let `domid` use a grant. whole: as it must be to be mapped, no part of a page.

        Raises GrantRefused.
        """
        if not 0 <= ref < self.entries():
            raise GrantRefused(
                f"grant {ref}: the table has {self.entries()} entries", GNTST_bad_gntref
            )
        active = self.active.get(ref)
        if active is not None and active.domid != domid:
            raise GrantRefused(f"grant {ref}: in use by domain {active.domid}, not {domid}")
        if active is not None and whole and active.length != abi.PAGE_SIZE:
            raise GrantRefused(f"grant {ref}: a part of a page cannot be mapped")
        if active is None or (not readonly and not any(active.users)):
            flags, granted_to, frame = self.entry(ref)
            if active is None:
                self._check(ref, flags, granted_to, domid, whole)
            if flags & abi.GTF_readonly and not readonly:
                raise GrantRefused(f"grant {ref}: is read-only")
            if active is None:
                active = self._activate(ref, flags, domid, frame)
            self._mark(ref, 0, abi.GTF_reading | (0 if readonly else abi.GTF_writing))
        active.users.append(not readonly)
        return active

    def _check(self, ref: int, flags: int, granted_to: int, domid: int, whole: bool) -> None:
        mask = abi.GTF_type_mask | (GTF_sub_page if whole else 0)
        if flags & mask != abi.GTF_permit_access:
            raise GrantRefused(f"grant {ref}: flags 0x{flags:x} are no GTF_permit_access")
        if granted_to != domid:
            raise GrantRefused(f"grant {ref}: is for domain {granted_to}, not {domid}")

    def _activate(self, ref: int, flags: int, domid: int, frame: int) -> Active:
        if (frame + 1) * abi.PAGE_SIZE > len(self.machine.ram):
            raise GrantRefused(f"grant {ref}: frame 0x{frame:x} is no RAM")
        if not self.machine.is_lendable(frame):
            raise GrantRefused(f"grant {ref}: frame 0x{frame:x} has no memory of this guest's")
        start, length = 0, abi.PAGE_SIZE
        if self.version == 2 and flags & GTF_sub_page:
            view, at = self._at(ref)
            start, length = struct.unpack_from("<HH", view, at + 4)
        self.active[ref] = Active(domid, frame, start, length)
        return self.active[ref]

    def release(self, ref: int, readonly: bool) -> None:
        """Undo one acquire()."""
        active = self.active[ref]
        active.users.remove(not readonly)
        clear = 0 if active.users else abi.GTF_reading
        if not readonly and not any(active.users):
            clear |= abi.GTF_writing
        self._mark(ref, clear, 0)
        if not active.users:
            del self.active[ref]

    def map(self, ref: int, domid: int, readonly: bool) -> Mapping:
        """Map the frame that an entry grants to `domid`. Raises GrantRefused."""
        active = self.acquire(ref, domid, readonly, whole=True)
        mapping = Mapping(self, ref, active.frame, readonly)
        self.mappings.append(mapping)
        return mapping

    def unmapped(self, mapping: Mapping) -> None:
        """Forget a mapping that is gone; others may still use the entry."""
        self.mappings.remove(mapping)
        self.release(mapping.ref, mapping.readonly)

    # The version.

    def set_version(self, version: int) -> None:
        """Change the layout; all entries but the reserved ones are wiped.

        Refuses while an entry that is not reserved is in use (EBUSY).
        """
        if version not in (1, 2):
            raise XenRefuses(EINVAL)
        if version > self.max_version:
            raise XenRefuses(ENOSYS)
        if version == self.version:
            return
        if any(ref >= abi.GNTTAB_NR_RESERVED_ENTRIES for ref in self.active):
            raise XenRefuses(EBUSY)
        reserved = list(self._reserved())
        for page in self.status_frames:
            self.machine.take_back(page)
        self.status_frames = []
        self.version = version
        self.grow(len(self.frames))
        for page in self.frames:
            page.view[:] = bytes(abi.PAGE_SIZE)
        for ref, (flags, domid, frame) in enumerate(reserved):
            self.set_entry(ref, flags & ~IN_USE, domid, frame)
            self._mark(ref, 0, flags & IN_USE)

    def _reserved(self) -> Iterator[tuple[int, int, int]]:
        """Return the toolstack's entries, as the other version can have them."""
        for ref in range(abi.GNTTAB_NR_RESERVED_ENTRIES):
            flags, domid, frame = self.entry(ref)
            kind = flags & abi.GTF_type_mask
            if self.version == 1:
                yield flags, domid, frame
            elif kind == abi.GTF_type_mask or (kind == abi.GTF_permit_access and frame >> 32):
                raise XenRefuses(ERANGE)
            elif kind == abi.GTF_permit_access:
                yield flags | self.status(ref), domid, frame
            else:
                yield 0, 0, 0
