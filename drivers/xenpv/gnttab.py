"""The grant table, both versions: lend frames to another domain and take them back.

Used by block front ends. Version 1 is asked for; where the crashed kernel's version 2 cannot be
left, because its backends still have grants mapped, the table is used as it is. Frames of the table
are mapped when entries are wanted, in place of pages of our own: first new ones beyond those in
use, for which the table grows up to Xen's limit, then those below. Of the latter only free entries
are used: grants of the crashed kernel may still be mapped by its backends, and the low ones are the
toolstack's. An entry that its peer still has mapped is set aside and never used again.
Source: xen/include/public/grant_table.h; xen/common/grant_table.c (gnttab_map_frame).
"""

import hw

from . import abi
from .errors import HypercallError, XenError

# How many frames are mapped at a time, at least.
FRAMES = 2
# Version 2 has a status frame for so many frames of entries.
STATUS_SPAN = abi.GRANT_ENTRY_V2_SIZEOF // 2


class GrantTable:
    """This domain's grant table.

    Args:
        xen: Hypercalls.

    Attributes: version, 1 or 2; set_aside, how many entries a peer did not let go; full, None or
    why the table does not grow. For suspend.py: mapped, the LentFrames; statuses, addresses of
    status frames, by their number; devices, the disks that may have lent entries; suspended,
    whether a suspension is under way. Raises: XenError when no entry can be used.
    """

    def __init__(self, xen):
        self.xen = xen
        self.devices = []
        self.suspended = False
        self.set_aside = 0
        self.statuses = {}
        # The page at which lent() looks at one frame more.
        self._window = 0
        nr = self.begin()
        # The numbers of the frames mapped: from _low on, below _high.
        self._low = self._high = min(nr, self._limit)
        if not self.fits(1):
            raise XenError("grant table: no entry can be used: %s" % self.full)

    def begin(self):
        """Look at a table of which nothing is mapped. Returns how many frames are in use."""
        self.full = None
        self.mapped = []
        self.version = self._choose_version()
        size = abi.GRANT_ENTRY_V1_SIZEOF if self.version == 1 else abi.GRANT_ENTRY_V2_SIZEOF
        self._entries = abi.PAGE_SIZE // size  # of a frame
        nr, limit = self._query_size()
        # Entry 0 must not come to lie below address 0, and later pages are above this one.
        self._limit = min(limit, self.xen.page // abi.PAGE_SIZE)
        return nr

    def _op(self, what, cmd, fmt, *fields):
        self.xen.call(what, abi.HYPERVISOR_grant_table_op, cmd, fmt, *fields)

    def _choose_version(self):
        fields = (abi.DOMID_SELF, 0, 0)
        self._op("GNTTABOP_get_version", abi.GNTTABOP_get_version, abi.GNTTAB_GET_VERSION, *fields)
        version = self.xen.result("<I", abi.GNTTAB_GET_VERSION_VERSION)
        if version != 1:
            try:
                self._op(
                    "GNTTABOP_set_version 1",
                    abi.GNTTABOP_set_version,
                    abi.GNTTAB_SET_VERSION,
                    1,
                )
            except HypercallError as e:
                if version == 2:
                    return 2
                raise XenError(
                    "grant table: version %d is in force and cannot be changed to 1 (%s)"
                    % (version, e)
                )
        return 1

    def _query_size(self):
        """Return (frames in use, the most that Xen allows)."""
        fields = (abi.DOMID_SELF, 0, 0, 0, 0, 0)
        self._op("GNTTABOP_query_size", abi.GNTTABOP_query_size, abi.GNTTAB_QUERY_SIZE, *fields)
        nr = self.xen.result("<I", abi.GNTTAB_QUERY_SIZE_NR_FRAMES)
        return nr, self.xen.result("<I", abi.GNTTAB_QUERY_SIZE_MAX_NR_FRAMES)

    # Growing.

    def use(self, table, status, stack, first, count):
        """Lend from frames that are mapped. Returns how many of their entries are in use."""
        frames = LentFrames(self, table, status, stack, first, count)
        self.mapped.append(frames)
        return frames.find_free(first * self._entries, (first + count) * self._entries)

    def _next(self, n):
        """Return (first, how many) of the frames to map next, for n entries if possible."""
        count = max(FRAMES, (n + self._entries - 1) // self._entries)
        upward = self._high < self._limit
        count = min(count, self._limit - self._high if upward else self._low)
        if self.version != 1:
            # All have the same status frame.
            to_end = STATUS_SPAN - self._high % STATUS_SPAN
            count = min(count, to_end if upward else (self._low - 1) % STATUS_SPAN + 1)
        return (self._high if upward else self._low - count), count

    def _grow(self, n):
        """Map more frames. Returns whether there are more; if not, `full` says why."""
        if self.full is not None:
            return False
        first, count = self._next(n)
        if count == 0:
            self.full = "all %d frames that Xen allows are in use" % self._limit
            return False
        number = first // STATUS_SPAN
        status = self.version != 1 and number not in self.statuses
        # Room for those of version 1, which are more: the next domain may have it.
        stack = (4 * count + abi.GRANT_ENTRY_V1_SIZEOF - 1) // abi.GRANT_ENTRY_V1_SIZEOF
        try:
            base = hw.alloc_pages(count + stack + int(status))
        except MemoryError as e:
            self.full = "%s (%d frames of the table are mapped)" % (e, self._high - self._low)
            return False
        try:
            mapped = self._map(first, count, base)
            if status and mapped:
                at = base + (count + stack) * abi.PAGE_SIZE
                self.add(number | abi.XENMAPIDX_grant_table_status, at)
                self.statuses[number] = at - number * abi.PAGE_SIZE
        except HypercallError as e:
            self.full = str(e)
            return False
        if mapped:
            table = base - first * abi.PAGE_SIZE
            stack = base + count * abi.PAGE_SIZE
            self.use(table, self.statuses.get(number), stack, first, mapped)
            self._low = min(self._low, first)
            self._high = max(self._high, first + mapped)
        return mapped > 0

    def _map(self, first, count, base):
        """Map frames one behind the other. Returns how many Xen gave."""
        for i in range(count):
            try:
                self.add(first + i, base + i * abi.PAGE_SIZE)
            except HypercallError as e:
                self.full = str(e)
                return i
        return count

    def add(self, idx, at):
        """Map a frame of the table at an address. Raises HypercallError."""
        self.xen.add_to_physmap(abi.XENMAPSPACE_grant_table, idx, at // abi.PAGE_SIZE)

    # Looking.

    def places(self):
        """Return the addresses of our pages in whose place frames of the table were put, a list."""
        found = [
            frames.address(number)
            for frames in self.mapped
            for number in range(self._low, self._high)
        ]
        found += [base + number * abi.PAGE_SIZE for number, base in self.statuses.items()]
        found.append(self._window or None)
        return [at for at in found if at is not None]

    def lent(self, ref):
        """Look at an entry, ours or the crashed kernel's.

        Returns: (domain, frame) of what it lends, None if it lends no frame.
        Raises: HypercallError, MemoryError.
        """
        number = ref // self._entries
        if not 0 <= number < self._high:
            return None
        size = abi.PAGE_SIZE // self._entries
        at = self._look_at(number) + ref % self._entries * size
        if hw.rd16(at) & abi.GTF_type_mask != abi.GTF_permit_access:
            return None
        domid = hw.rd16(at + abi.GRANT_ENTRY_V1_DOMID)
        if self.version == 1:
            return domid, hw.rd32(at + abi.GRANT_ENTRY_V1_FRAME)
        return domid, hw.rd64(at + abi.GRANT_ENTRY_V2_FRAME)

    def _look_at(self, number):
        """Return the address of a frame of the table."""
        for frames in self.mapped:
            at = frames.address(number)
            if at is not None:
                return at
        if not self._window:
            self._window = hw.alloc_pages(1)
        self.add(number, self._window)
        return self._window

    # Lending.

    def free(self):
        """Return how many entries can be lent now, without growing."""
        return sum(frames.free for frames in self.mapped)

    def fits(self, n):
        """Return whether n entries can be lent at once; the table grows for that."""
        for frames in self.mapped:
            if frames.free >= n:
                return True
        while self._grow(n):
            if self.mapped[-1].free >= n:
                return True
        return False

    def most(self, n):
        """Return how many entries, up to n, can be lent at once."""
        if self.fits(n):
            return n
        return max([frames.free for frames in self.mapped])

    def lend(self, refs, n, domid, gfn, readonly):
        """Grant frames to a domain.

        Args:
            refs: address of an array of u32, in which the entries' numbers are stored.
            n: how many frames.
            domid: the domain.
            gfn: the first frame.
            readonly: whether the domain may only read them.

        Returns: the LentFrames that hold the entries, whose end() takes them back.
        Raises: XenError when there are not as many entries.
        """
        for frames in self.mapped:
            if frames.free >= n:
                frames.lend(refs, n, domid, gfn, readonly)
                return frames
        if not self.fits(n):
            raise XenError(
                "grant table: %d entries wanted at once; %d are free, %d still mapped by a backend;"
                " %s" % (n, self.free(), self.set_aside, self.full)
            )
        return self.lend(refs, n, domid, gfn, readonly)


class LentFrames:
    """Some frames of the table, mapped together, whose entries are lent and taken back.

    Args:
        owner: GrantTable.
        table, status: the addresses at which entry 0 and its status would be; status: None for
            version 1.
        stack: address of an array of u32 for the numbers of free entries.
        first, count: the numbers of the frames.

    Attributes: free, how many entries can be lent; numbers, of the frames, a range; table, stack,
    as given; owner, None once a suspension has ended all grants.
    """

    def __init__(self, owner, table, status, stack, first, count):
        self.owner = owner
        self.free = 0
        self.numbers = range(first, first + count)
        self.table = table
        self._status = status
        self.stack = stack
        self._fill = hw.grant_fill if status is None else hw.grant_fill_v2

    def find_free(self, first, end):
        """Look which entries, from `first` on and below `end`, are free.

        Returns: how many are not.
        """
        first = max(first, abi.GNTTAB_NR_RESERVED_ENTRIES)
        size = abi.GRANT_ENTRY_V1_SIZEOF if self._status is None else abi.GRANT_ENTRY_V2_SIZEOF
        for ref in range(first, end):
            in_use = hw.rd16(self.table + ref * size)
            if self._status is not None:
                in_use |= hw.rd16(self._status + 2 * ref)
            if not in_use:
                hw.wr32(self.stack + 4 * self.free, ref)
                self.free += 1
        return end - first - self.free

    def address(self, number):
        """Return the address of a frame of the table; None if it is not one of these."""
        return self.table + number * abi.PAGE_SIZE if number in self.numbers else None

    def lend(self, refs, n, domid, gfn, readonly):
        """Grant frames to a domain; as GrantTable.lend(). There are as many free entries."""
        self.free -= n
        hw.copy(refs, self.stack + 4 * self.free, 4 * n)
        flags = abi.GTF_permit_access | (abi.GTF_readonly if readonly else 0)
        self._fill(self.table, refs, n, domid, gfn, flags)

    def end(self, refs, n):
        """Take grants back; the peer must have unmapped them.

        Args:
            refs: address of an array of u32, the entries' numbers; afterwards those that are still
                mapped come first.
            n: how many.

        Returns: how many the peer still has mapped: these are set aside, never reused.
        Source: grant_table.h, "Invalidating an unused GTF_permit_access entry".
        """
        if self.owner is None:
            return 0
        if self._status is None:
            busy = hw.grant_end(self.table, refs, n)
        else:
            busy = hw.grant_end_v2(self.table, self._status, refs, n)
        hw.copy(self.stack + 4 * self.free, refs + 4 * busy, 4 * (n - busy))
        self.free += n - busy
        self.owner.set_aside += busy
        return busy
