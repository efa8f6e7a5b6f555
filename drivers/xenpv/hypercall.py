"""Hypercalls, with their arguments in memory that Xen can read.

Used by every driver that asks Xen for something. One page outside the heap holds the argument of
the current call; nothing here waits, so one page serves all. A negative answer becomes a
HypercallError.
Source: xen/include/public/{memory,sched,grant_table,hvm/hvm_op}.h.
"""

import struct

import hw

from . import abi
from .errors import HypercallError

# Copies that one hypercall of refused() makes, and the bytes of each.
COPIES = 64
COPIED = 8


class Hypercalls:
    """The hypercalls of this domain.

    page: the address of the page that holds arguments; ahead: what now() is ahead of Xen's system
    time, ns.
    """

    def __init__(self):
        self.ahead = 0
        self.page = hw.alloc_pages(1)
        self._mem = hw.mem(self.page, abi.PAGE_SIZE)

    def call(self, what, nr, cmd, fmt, *fields):
        """Make a hypercall with a structure as argument, which result() may read afterwards.

        Args:
            what: the call's name, for the error.
            nr: HYPERVISOR_*.
            cmd: the operation.
            fmt, fields: the structure, as for struct.pack.

        Returns: Xen's answer, 0 or more. Raises: HypercallError.
        """
        struct.pack_into(fmt, self._mem, 0, *fields)
        # The third argument is grant_table_op's count of structures; the others take two.
        rc = hw.hypercall(nr, cmd, self.page, 1)
        if rc < 0:
            raise HypercallError(what, -rc)
        return rc

    def result(self, fmt, offset):
        """Return one field, at a byte offset, of the structure that the last call left."""
        return struct.unpack_from(fmt, self._mem, offset)[0]

    def hvm_param(self, index):
        """Return one of this domain's HVM parameters, a u64. Raises HypercallError."""
        self.call(
            "HVMOP_get_param %d" % index,
            abi.HYPERVISOR_hvm_op,
            abi.HVMOP_get_param,
            abi.XEN_HVM_PARAM,
            *(abi.DOMID_SELF, 0, index, 0),
        )
        return self.result("<Q", abi.XEN_HVM_PARAM_VALUE)

    def peek(self, gfn, size):
        """Have Xen copy the first bytes of a frame of this domain.

        Args:
            gfn: the frame; any number, because Xen checks it.
            size: bytes, up to 2048.

        Returns: the bytes, None where Xen does not give them.
        """
        at = abi.PAGE_SIZE // 2
        source = (gfn, abi.DOMID_SELF, 0, 0)
        dest = (self.page // abi.PAGE_SIZE, abi.DOMID_SELF, at, 0)
        try:
            self.call(
                "GNTTABOP_copy from 0x%x" % gfn,
                abi.HYPERVISOR_grant_table_op,
                abi.GNTTABOP_copy,
                abi.GNTTAB_COPY,
                *(source + dest + (size, 0, 0)),
            )
        except HypercallError:
            return None
        if self.result("<h", abi.GNTTAB_COPY_STATUS) != abi.GNTST_okay:
            return None
        return bytes(self._mem[at : at + size])

    def refused(self, gfns):
        """Find the frames that Xen lets no other domain use, by having it copy a few bytes of each.

        These have no memory behind them, as where a balloon driver has given it back to Xen, or
        are another domain's.

        Args:
            gfns: list of frame numbers, at most COPIES.

        Returns: list of those refused, in the same order; none where Xen does not answer.
        Source: xen/common/grant_table.c, get_paged_frame: it decides for a copy and for a mapping.
        """
        count = len(gfns)
        page = self.page // abi.PAGE_SIZE
        # Behind the frame's number, which stands first.
        source, dest = (0, abi.DOMID_SELF, 0, 0), (page, abi.DOMID_SELF, abi.PAGE_SIZE - COPIED, 0)
        rest = struct.pack(abi.GNTTAB_COPY, *(source + dest + (COPIED, 0, 0)))[8:]
        fields = []
        for gfn in gfns:
            fields.append(gfn)
            fields.append(rest)
        struct.pack_into("<" + "Q32s" * count, self._mem, 0, *fields)
        nr = abi.HYPERVISOR_grant_table_op
        if hw.hypercall(nr, abi.GNTTABOP_copy, self.page, count) < 0:
            return []
        given = (abi.GNTST_okay, abi.GNTST_eagain)
        statuses = struct.unpack_from("<" + "36xh2x" * count, self._mem, 0)
        return [gfn for gfn, status in zip(gfns, statuses) if status not in given]

    def add_to_physmap(self, space, idx, gfn):
        """Put one of Xen's own frames at gfn, in place of what is there. Raises HypercallError.

        Args:
            space: XENMAPSPACE_*.
            idx: the frame's number in it.
            gfn: where it shall be.
        """
        self.call(
            "XENMEM_add_to_physmap space %d idx %d" % (space, idx),
            abi.HYPERVISOR_memory_op,
            abi.XENMEM_add_to_physmap,
            abi.XEN_ADD_TO_PHYSMAP,
            *(abi.DOMID_SELF, 0, space, idx, gfn),
        )

    def poll(self, ports, count, until):
        """Block until one of some ports has an event, or until a time has come.

        Args:
            ports: the physical address of an array of port numbers, u32.
            count: how many they are.
            until: a time of now().

        Raises: HypercallError.
        """
        self.call(
            "SCHEDOP_poll",
            abi.HYPERVISOR_sched_op,
            abi.SCHEDOP_poll,
            abi.SCHED_POLL,
            *(ports, count, 0, until - self.ahead),
        )

    def now(self):
        """Return the time in ns: Xen's system time, but that it stands still in a suspension."""
        return hw.now() + self.ahead

    def sleep(self, ns):
        """Block for a time in ns, whatever happens."""
        until = self.now() + ns
        # A poll on no port ends with any new event of this domain.
        while self.now() < until:
            self.poll(self.page, 0, until)

    def shutdown(self, reason):
        """End this domain with one of SHUTDOWN_*. Returns only by HypercallError."""
        self.call(
            "SCHEDOP_shutdown %d" % reason,
            abi.HYPERVISOR_sched_op,
            abi.SCHEDOP_shutdown,
            abi.SCHED_SHUTDOWN,
            reason,
        )
