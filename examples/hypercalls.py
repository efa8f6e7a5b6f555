# Times hypercalls: what one costs in ns, the mean of some thousand, without the loop around it.
#
# hw.hypercall(number, ...) is the bare instruction. The drivers' own, xen.call(), also packs the
# arguments and makes an exception of an error.

import struct

from xenpv import abi

TIMES = 2000


def nothing():
    pass


def time(name, call):
    """Print what a call costs beyond a call of nothing()."""
    costs = []
    for function in (nothing, call):
        began = hw.now()
        for _ in range(TIMES):
            function()
        costs.append(hw.now() - began)
    print("%-28s %6d ns" % (name, (costs[1] - costs[0]) // TIMES))


# An event channel with both ends here: alloc_unbound and bind_interdomain make it.
near = evtchn.alloc_unbound(abi.DOMID_SELF)
far = evtchn.bind_interdomain(abi.DOMID_SELF, near)

# Structures that Xen reads need memory whose address is known.
page = hw.alloc_pages(3)
send, copy, frame = page, page + 64, page // 4096
hw.mem(send, 4)[:] = struct.pack(abi.EVTCHN_SEND, far)
source, target = (frame + 1, abi.DOMID_SELF, 0, 0), (frame + 2, abi.DOMID_SELF, 0, 0)
hw.mem(copy, 40)[:] = struct.pack(abi.GNTTAB_COPY, *(source + target + (4096, 0, 0)))

version = hw.hypercall(abi.HYPERVISOR_xen_version, abi.XENVER_version, 0)
print("Xen %d.%d" % (version >> 16, version & 0xFFFF))
time("XENVER_version", lambda: hw.hypercall(abi.HYPERVISOR_xen_version, abi.XENVER_version, 0))
time("SCHEDOP_yield", lambda: hw.hypercall(abi.HYPERVISOR_sched_op, abi.SCHEDOP_yield, 0))
time(
    "EVTCHNOP_send",
    lambda: hw.hypercall(abi.HYPERVISOR_event_channel_op, abi.EVTCHNOP_send, send),
)
time(
    "GNTTABOP_copy of a page",
    lambda: hw.hypercall(abi.HYPERVISOR_grant_table_op, abi.GNTTABOP_copy, copy, 1),
)
hw.mem(page + 4096, 4096)[:] = b"copied.." * 512
hw.hypercall(abi.HYPERVISOR_grant_table_op, abi.GNTTABOP_copy, copy, 1)
print("the copy is %s" % ("right" if hw.mem(page + 8192, 8)[:] == b"copied.." else "wrong"))
print("an event %s" % ("has come" if evtchn.take(near) else "is lost"))
evtchn.close(far)
evtchn.close(near)
