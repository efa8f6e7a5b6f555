"""Runs in the image: the grant table as a crashed kernel may have left it, its peer ourselves.

host-tests/boot/test_grants.py reads these lines, each a name and a value.
"""

import struct

import hw
from xenpv import abi
from xenpv.evtchn import EventChannels
from xenpv.gnttab import GrantTable
from xenpv.hypercall import Hypercalls

GNTTABOP_map_grant_ref = 0
GNTTABOP_unmap_grant_ref = 1
GNTMAP_host_map = 2
GNTCOPY_source_gref = 1
MAP = "<QIIHhIQ"
COPY = "<QHHIQHHIHHhH"
CRASHED = 20


def show(name, value):
    print(name, value)


def op(xen, cmd, fmt, *fields):
    xen.call(f"grant table operation {cmd}", abi.HYPERVISOR_grant_table_op, cmd, fmt, *fields)


def own_domid(xen):
    """The number of this domain, which Xen puts in place of DOMID_SELF in a channel's status."""
    nr, port = abi.HYPERVISOR_event_channel_op, EventChannels(xen).alloc_unbound(abi.DOMID_SELF)
    xen.call("EVTCHNOP_status", nr, abi.EVTCHNOP_status, "<HHIQQ", abi.DOMID_SELF, 0, port, 0, 0)
    return xen.result("<H", 16)


def map_grant(xen, ref, me):
    """Map a grant of our own at a page of our own. Returns (status, page, handle)."""
    page = hw.alloc_pages(1)
    op(xen, GNTTABOP_map_grant_ref, MAP, page, GNTMAP_host_map, ref, me, 0, 0, 0)
    return xen.result("<h", 18), page, xen.result("<I", 20)


def unmap_grant(xen, mapping):
    op(xen, GNTTABOP_unmap_grant_ref, "<QQIhH", mapping[1], 0, mapping[2], 0, 0)
    return xen.result("<h", 20)


def copy(xen, ref, me, page):
    """Copy 16 bytes out of a grant into a page of our own. Returns the status."""
    dest = (page // abi.PAGE_SIZE, abi.DOMID_SELF, 0, 0)
    op(xen, abi.GNTTABOP_copy, COPY, ref, me, 0, 0, *dest, 16, GNTCOPY_source_gref, 0, 0)
    return xen.result("<h", 36)


def leave_version_2(xen, me):
    """What a crashed kernel leaves: version 2, with a grant that its backend has mapped."""
    op(xen, abi.GNTTABOP_set_version, "<I", 2)
    table = hw.alloc_pages(1)
    xen.add_to_physmap(abi.XENMAPSPACE_grant_table, 0, table // abi.PAGE_SIZE)
    entry = table + CRASHED * abi.GRANT_ENTRY_V2_SIZEOF
    fields = (abi.GTF_permit_access, me, 0, hw.alloc_pages(1) // abi.PAGE_SIZE)
    struct.pack_into("<HHIQ", hw.mem(entry, abi.GRANT_ENTRY_V2_SIZEOF), 0, *fields)
    mapping = map_grant(xen, CRASHED, me)
    show("crashed", mapping[0])
    return mapping


def try_table(xen, me):
    grants = GrantTable(xen)
    show("version", grants.version)
    refs, data, into = (hw.alloc_pages(n) for n in (1, 2, 1))
    hw.mem(data, 4)[:] = b"held"
    hw.mem(data + abi.PAGE_SIZE, 16)[:] = b"across the table"
    frames = grants.lend(refs, 2, me, data // abi.PAGE_SIZE, False)
    first, second = hw.rd32(refs), hw.rd32(refs + 4)
    show("copy", copy(xen, second, me, into))
    show("copied", bytes(hw.mem(into, 16)))
    mapping = map_grant(xen, first, me)
    show("map", mapping[0])
    # Mapped by its owner, a page of an HVM guest moves: it is not at its old place any more.
    show("mapped", bytes(hw.mem(mapping[1], 4)))
    show("busy", frames.end(refs, 2))
    show("held", hw.rd32(refs) == first)
    show("refused", copy(xen, second, me, into))
    show("unmap", unmap_grant(xen, mapping))


def main():
    try:
        xen = Hypercalls()
        me = own_domid(xen)
        left = leave_version_2(xen, me)
        try_table(xen, me)
        show("unmap", unmap_grant(xen, left))
        try_table(xen, me)
        show("end", "")
    finally:
        hw.console_flush(2000)
        hw.halt()
