"""Grant table, both versions: lend frames to another domain and take them back.

Used by block front ends. Version 1 is asked for; where an earlier kernel's version 2 cannot be
left, because its backends still have grants mapped, the table is used as it is. Entries are taken
from the top of the table, which grows for it where Xen allows that, and only those that are free:
an earlier kernel's grants may still be mapped by its backends, and the low ones are the
toolstack's. An entry that its peer still has mapped is set aside and never used again. Only the
last frames of the table are mapped, in place of pages of our own; in version 2 also the frames that
hold their status.
Source: xen/include/public/grant_table.h.
"""

import hw

from . import abi
from .errors import HypercallError, XenError

FRAMES = 2
STATUSES = abi.PAGE_SIZE // 2  # in a status frame


class GrantTable:
    def __init__(self, xen):
        self.xen = xen
        self.set_aside = 0
        self.version = self._choose_version()
        self._size = abi.GRANT_ENTRY_V1_SIZEOF if self.version == 1 else abi.GRANT_ENTRY_V2_SIZEOF
        entries = abi.PAGE_SIZE // self._size
        first, base, frames = self._map()
        # Where entry 0 and its status would be; the C primitives count from there.
        self.table = base - first * abi.PAGE_SIZE
        self.status = 0
        if self.version != 1:
            self.status = self._map_status(first * entries, frames * entries)
        self._stack = hw.alloc_pages((frames * entries * 4 + abi.PAGE_SIZE - 1) // abi.PAGE_SIZE)
        self._free = 0
        for ref in range(first * entries, (first + frames) * entries):
            if ref >= abi.GNTTAB_NR_RESERVED_ENTRIES and self._is_free(ref):
                hw.wr32(self._stack + 4 * self._free, ref)
                self._free += 1

    def _op(self, what, cmd, fmt, *fields):
        self.xen.call(what, abi.HYPERVISOR_grant_table_op, cmd, fmt, *fields)

    def _choose_version(self):
        self._op("GNTTABOP_get_version", abi.GNTTABOP_get_version, "<HHI", abi.DOMID_SELF, 0, 0)
        version = self.xen.result("<I", abi.GNTTAB_GET_VERSION_VERSION)
        if version != 1:
            try:
                self._op("GNTTABOP_set_version 1", abi.GNTTABOP_set_version, "<I", 1)
            except HypercallError as e:
                if version == 2:
                    return 2
                raise XenError(
                    "grant table: version %d is in force and cannot be changed to 1 (%s)"
                    % (version, e)
                )
        return 1

    def _map(self):
        """Map the last frames. Returns (first frame's number, address, how many)."""
        self._op(
            "GNTTABOP_query_size",
            abi.GNTTABOP_query_size,
            "<HHIIhH",
            abi.DOMID_SELF,
            0,
            0,
            0,
            0,
            0,
        )
        nr = self.xen.result("<I", abi.GNTTAB_QUERY_SIZE_NR_FRAMES)
        limit = self.xen.result("<I", abi.GNTTAB_QUERY_SIZE_MAX_NR_FRAMES)
        frames = min(FRAMES, limit)
        if frames == 0:
            raise XenError("grant table: Xen allows this domain none")
        base = hw.alloc_pages(frames)
        # Frames beyond those in use grow the table: every entry in them is free. Entry 0 must not
        # come to lie below address 0.
        first = min(nr, limit - frames, base // abi.PAGE_SIZE)
        for i in range(frames):
            gfn = base // abi.PAGE_SIZE + i
            self.xen.add_to_physmap(abi.XENMAPSPACE_grant_table, first + i, gfn)
        return first, base, frames

    def _map_status(self, ref, entries):
        """Map the status of `entries` entries from ref on. Returns where entry 0's would be."""
        first = ref // STATUSES
        frames = (ref + entries - 1) // STATUSES - first + 1
        base = hw.alloc_pages(frames)
        for i in range(frames):
            idx = first + i | abi.XENMAPIDX_grant_table_status
            gfn = base // abi.PAGE_SIZE + i
            self.xen.add_to_physmap(abi.XENMAPSPACE_grant_table, idx, gfn)
        return base - first * abi.PAGE_SIZE

    def _is_free(self, ref):
        if hw.rd16(self.table + ref * self._size) != 0:
            return False
        return self.version == 1 or hw.rd16(self.status + 2 * ref) == 0

    def free(self):
        """Entries that can be granted now."""
        return self._free

    def take(self, refs, n):
        """Take n free entries; their numbers are stored as a u32 array at address refs."""
        if n > self._free:
            raise XenError("grant table: %d entries wanted, %d free" % (n, self._free))
        self._free -= n
        hw.copy(refs, self._stack + 4 * self._free, 4 * n)

    def grant(self, refs, n, domid, gfn, readonly):
        """Grant n frames from gfn on to domid through the entries at refs."""
        flags = abi.GTF_permit_access | (abi.GTF_readonly if readonly else 0)
        fill = hw.grant_fill if self.version == 1 else hw.grant_fill_v2
        fill(self.table, refs, n, domid, gfn, flags)

    def end(self, refs, n):
        """Take back n grants, whose numbers stand at refs; the peer must have unmapped them.

        Returns how many it still has mapped: these are set aside, never reused.
        Source: grant_table.h, "Invalidating an unused GTF_permit_access entry".
        """
        if self.version == 1:
            busy = hw.grant_end(self.table, refs, n)
        else:
            busy = hw.grant_end_v2(self.table, self.status, refs, n)
        self.set_aside += busy
        hw.copy(self._stack + 4 * self._free, refs + 4 * busy, 4 * (n - busy))
        self._free += n - busy
        return busy
