"""The guest's grant table, version 1, and the other side's use of it.

Used by the hypercalls for the guest (size, frames, version) and by backends, who map and unmap. The
entries live where the guest mapped the frames, in its own RAM; Xen reads each once when a grant is
mapped, and marks it in use for as long as it is. Source: Xen public/grant_table.h.
"""

from __future__ import annotations

import struct
from errno import EBUSY, EINVAL
from typing import TYPE_CHECKING

from xenpv import abi

from .evtchn import XenRefuses

if TYPE_CHECKING:
    from .machine import Machine

ENTRIES = abi.PAGE_SIZE // abi.GRANT_ENTRY_V1_SIZEOF
ENTRY = "<HHI"


class GrantRefused(Exception):
    """A grant that cannot be mapped; the message says what is wrong with its entry."""


class Mapping:
    """One frame of the guest, mapped. addr: its guest-physical address; view: its 4096 bytes."""

    def __init__(self, table: GrantTable, ref: int, frame: int, readonly: bool) -> None:
        self.table = table
        self.ref = ref
        self.readonly = readonly
        self.addr = frame * abi.PAGE_SIZE
        view = memoryview(table.machine.ram)[self.addr : self.addr + abi.PAGE_SIZE]
        self.view = view.toreadonly() if readonly else view

    def unmap(self) -> None:
        self.table.unmapped(self)


class GrantTable:
    def __init__(self, machine: Machine, frames: int, max_frames: int, version: int) -> None:
        self.machine = machine
        self.max_frames = max_frames
        self.version = version
        self.frames = [machine.new_page() for _ in range(frames)]
        self.mappings: list[Mapping] = []

    def grow(self, frames: int) -> None:
        """Have at least so many frames. Refuses more than max_frames."""
        if frames > self.max_frames:
            raise XenRefuses(EINVAL)
        while len(self.frames) < frames:
            self.frames.append(self.machine.new_page())

    def entry(self, ref: int) -> tuple[int, int, int]:
        """(flags, domid, frame) of an entry, as it stands in the table."""
        page = self.frames[ref // ENTRIES]
        return struct.unpack_from(ENTRY, page.view, ref % ENTRIES * abi.GRANT_ENTRY_V1_SIZEOF)

    def set_entry(self, ref: int, flags: int, domid: int, frame: int) -> None:
        """What the toolstack does for the reserved entries, and an earlier kernel for others."""
        view = self.frames[ref // ENTRIES].view
        struct.pack_into(
            ENTRY, view, ref % ENTRIES * abi.GRANT_ENTRY_V1_SIZEOF, flags, domid, frame
        )

    def _mark(self, ref: int, clear: int, add: int) -> None:
        flags, domid, frame = self.entry(ref)
        self.set_entry(ref, flags & ~clear | add, domid, frame)

    def map(self, ref: int, domid: int, readonly: bool) -> Mapping:
        """Map the frame that an entry grants to `domid`. Raises GrantRefused."""
        if self.version != 1:
            raise GrantRefused(f"grant table version {self.version} is in force, 1 expected")
        if not 0 <= ref < len(self.frames) * ENTRIES:
            raise GrantRefused(f"grant {ref}: the table has {len(self.frames) * ENTRIES} entries")
        flags, granted_to, frame = self.entry(ref)
        if flags & 3 != abi.GTF_permit_access:
            raise GrantRefused(f"grant {ref}: flags 0x{flags:x} are no GTF_permit_access")
        if granted_to != domid:
            raise GrantRefused(f"grant {ref}: is for domain {granted_to}, not {domid}")
        if flags & abi.GTF_readonly and not readonly:
            raise GrantRefused(f"grant {ref}: is read-only")
        if (frame + 1) * abi.PAGE_SIZE > len(self.machine.ram):
            raise GrantRefused(f"grant {ref}: frame 0x{frame:x} is no RAM")
        if frame in self.machine.holes:
            raise GrantRefused(f"grant {ref}: frame 0x{frame:x} has no memory behind it")
        self._mark(ref, 0, abi.GTF_reading | (0 if readonly else abi.GTF_writing))
        mapping = Mapping(self, ref, frame, readonly)
        self.mappings.append(mapping)
        return mapping

    def unmapped(self, mapping: Mapping) -> None:
        """Take note that a mapping is gone: the entry is in use by the others only."""
        self.mappings.remove(mapping)
        still = [other for other in self.mappings if other.ref == mapping.ref]
        clear = 0 if still else abi.GTF_reading
        if all(other.readonly for other in still):
            clear |= abi.GTF_writing
        self._mark(mapping.ref, clear, 0)

    def set_version(self, version: int) -> None:
        """Refuses while anything but the reserved entries is granted, and any version but 1."""
        if version != 1:
            raise XenRefuses(EINVAL)
        if version == self.version:
            return
        refs = range(abi.GNTTAB_NR_RESERVED_ENTRIES, len(self.frames) * ENTRIES)
        if any(self.entry(ref)[0] for ref in refs):
            raise XenRefuses(EBUSY)
        self.version = version
