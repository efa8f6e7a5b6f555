"""Hypercalls with their arguments in memory that Xen can read.

Used by every driver that asks Xen for something. One page outside the heap holds the argument of
the call in hand; nothing here waits, so one page serves all. Negative results become
HypercallError.
Source: xen/include/public/{memory,sched,hvm/hvm_op}.h.
"""

import struct

import hw

from . import abi
from .errors import HypercallError

# Copies that one hypercall of refused() makes, and the bytes of each.
COPIES = 64
COPIED = 8


class Hypercalls:
    def __init__(self):
        self.page = hw.alloc_pages(1)
        self._mem = hw.mem(self.page, abi.PAGE_SIZE)

    def call(self, what, nr, cmd, fmt, *fields):
        """One hypercall with a structure as argument; the structure may be read back by result().

        what: name for the error; nr: hypercall; cmd: sub-operation; fmt, fields: the structure as
        for struct.pack. Returns Xen's answer (>= 0). Raises HypercallError.
        """
        struct.pack_into(fmt, self._mem, 0, *fields)
        # The third argument is grant_table_op's count of structures; the others take two.
        rc = hw.hypercall(nr, cmd, self.page, 1)
        if rc < 0:
            raise HypercallError(what, -rc)
        return rc

    def result(self, fmt, offset):
        """One field of the structure that the last call left, at a byte offset."""
        return struct.unpack_from(fmt, self._mem, offset)[0]

    def hvm_param(self, index):
        """The u64 value of one of this domain's HVM parameters."""
        nr = abi.HYPERVISOR_hvm_op
        self.call(
            "HVMOP_get_param %d" % index,
            nr,
            abi.HVMOP_get_param,
            "<HHIQ",
            abi.DOMID_SELF,
            0,
            index,
            0,
        )
        return self.result("<Q", abi.XEN_HVM_PARAM_VALUE)

    def peek(self, gfn, size):
        """The first bytes of a frame of ours, up to 2048; None where Xen does not give them.

        It is Xen that copies them, so gfn may be any number.
        """
        at = abi.PAGE_SIZE // 2
        source = (gfn, abi.DOMID_SELF, 0, 0)
        dest = (self.page // abi.PAGE_SIZE, abi.DOMID_SELF, at, 0)
        try:
            self.call(
                "GNTTABOP_copy from 0x%x" % gfn,
                abi.HYPERVISOR_grant_table_op,
                abi.GNTTABOP_copy,
                "<QHHIQHHIHHI",
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
        rest = struct.pack(
            "<HHIQHHIHHI",
            *(abi.DOMID_SELF, 0, 0, page, abi.DOMID_SELF, abi.PAGE_SIZE - COPIED, 0, COPIED, 0, 0),
        )
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
        """Put one of Xen's own frames at gfn, in place of what is there."""
        self.call(
            "XENMEM_add_to_physmap space %d idx %d" % (space, idx),
            abi.HYPERVISOR_memory_op,
            abi.XENMEM_add_to_physmap,
            "<HHIQQ",
            abi.DOMID_SELF,
            0,
            space,
            idx,
            gfn,
        )

    def poll(self, ports, count, until):
        """Block until an event on one of the ports, or until Xen time `until` (ns).

        ports: physical address of a u32 array of `count` port numbers.
        """
        self.call(
            "SCHEDOP_poll",
            abi.HYPERVISOR_sched_op,
            abi.SCHEDOP_poll,
            "<QIIQ",
            ports,
            count,
            0,
            until,
        )

    def sleep(self, ns):
        """Block for a time, whatever happens."""
        until = hw.now() + ns
        # A poll on no port ends with any new event of this domain.
        while hw.now() < until:
            self.poll(self.page, 0, until)

    def shutdown(self, reason):
        """End this domain with one of SHUTDOWN_*. Returns only when Xen refuses (raises)."""
        self.call(
            "SCHEDOP_shutdown %d" % reason,
            abi.HYPERVISOR_sched_op,
            abi.SCHEDOP_shutdown,
            "<I",
            reason,
        )
