"""Runs in the image: tells what came in through the door, and tries the memory.

host-tests/boot reads these lines, each a name and a value.
"""

import gc

import micropython

import hw

GIB = 1 << 30
PAGE = 4096

HVM_OP = 34
HVMOP_GET_PARAM = 1
DOMID_SELF = 0x7FF0
HVM_PARAM_CONSOLE_PFN = 17


@micropython.viper
def viper_sum(n: int) -> int:
    total = 0
    for i in range(n):
        total += i
    return total


def show(name, value):
    print(name, value)


def caught(function, *args):
    try:
        return function(*args)
    except Exception as e:
        return f"{type(e).__name__}: {e}"


def deep(n):
    return deep(n + 1)


def given_again():
    """Whether pages given back are given again, zeroed."""
    page = hw.alloc_pages(2)
    hw.wr32(page, 1)
    hw.free_pages(page, 2)
    return hw.alloc_pages(2) == page, hw.rd32(page)


def kinds():
    """Accesses of each width, and what must be refused."""
    page = hw.alloc_pages(1)
    hw.wr32(page, 0x55667788)
    hw.wr32(page + 4, 0x11223344)
    show("widths", [hex(f(page)) for f in (hw.rd16, hw.rd32, hw.rd64)])
    hw.mem(page, 8)[2:4] = b"\xab\xcd"
    show("mem", hex(hw.rd64(page)))
    hw.copy(page + 1, page, 8)
    show("copied", hex(hw.rd64(page + 1)))
    show("bit", (hw.test_and_clear_bit(page, 3), hw.test_and_clear_bit(page, 3)))
    show("overflow", caught(hw.wr32, page, 1 << 32))
    show("negative", caught(hw.wr32, page, -1))
    show("wide", caught(hw.wr32, page, 1 << 64))
    show("widest", caught(hw.wr32, page, (1 << 32) - 1))
    show("wild", caught(hw.rd16, 1 << 60))
    show("below", [caught(f, *a)[:10] for f, a in BELOW])
    show("hypercall", caught(hw.hypercall, 17, 0))
    show("pool", caught(hw.alloc_pages, 1000))
    show("again", given_again())
    show("untaken", caught(hw.free_pages, hw.boot()[4][0], 1)[:26])


# Addresses and lengths that no memory has are a ValueError, however far off.
BELOW = [
    (hw.rd16, (-1,)),
    (hw.rd16, (1 << 64,)),
    (hw.mem, (0x200000, -1)),
    (hw.copy, (0x200000, 0x200000, 1 << 70)),
    (hw.seg_fill, (0x200000, 0x200000, 1 << 62, 0, 0)),
    (hw.grant_end, (0x200000, 0x200000, -1)),
]


def own_region(region):
    """The body through the identity map: its constants can be read, its variables written."""
    start, end = region
    text = bytes(hw.mem(start, 8))
    hw.wr32(end - 4, hw.rd32(end - 4))
    show("text", text == bytes(hw.mem(start, 8)))


def nmi():
    """One to ourselves, by the local APIC's interrupt command register."""
    hw.wr32(0xFEE00310, 0)
    hw.wr32(0xFEE00300, 0x4400)


def confuse_ring():
    """Put the console ring's indexes out of order, as a kernel or a reader gone mad would."""
    page = hw.alloc_pages(1)
    hw.wr32(page, DOMID_SELF)
    hw.wr32(page + 4, HVM_PARAM_CONSOLE_PFN)
    assert hw.hypercall(HVM_OP, HVMOP_GET_PARAM, page) == 0
    ring = hw.rd64(page + 8) * PAGE
    for name, index in (("out_cons", ring + 3080), ("out_prod", ring + 3084)):
        hw.console_flush(2000)
        hw.wr32(index, hw.rd32(index) + 5000)
        show("after", name)


def identity_map():
    """Every GiB of the first hundred, then our own pages again: tables are recycled meanwhile."""
    page = hw.alloc_pages(1)
    hw.wr32(page, 0x600D)
    for gib in range(1, 100):
        hw.rd32(gib * GIB)
    show("recycled", hex(hw.rd32(page)))


def main():
    door, cmdline, modules, memmap, region = hw.boot()
    show("door", door)
    show("cmdline", cmdline)
    show("modules", len(modules))
    if modules:
        addr, size = modules[0]
        show("module", bytes(hw.mem(addr, min(size, 0x206))[-4:]))
    show("ram", sum(size for _, size, kind in memmap if kind == 1))
    show("region", [hex(n) for n in region])
    show("xen", hw.xen())
    kinds()
    identity_map()
    own_region(region)
    show("viper", viper_sum(1000))
    show("recursion", caught(deep, 0))
    gc.collect()
    if cmdline.startswith(b"fault="):
        fault(cmdline[6:].decode(), region[0])
    show("end", "")
    # The domain ends with its only vCPU, and what nobody has read by then is lost.
    hw.console_flush(2000)
    hw.halt()


def fault(kind, start):
    try:
        hw.watchdog(3)
        if kind == "text":
            hw.wr32(start + 0x100, 0)
        elif kind == "nmi":
            nmi()
        elif kind == "ring":
            confuse_ring()
        else:
            hw.fault(kind)
    finally:
        show("finally", kind)
        if kind == "ud":
            hw.fault("page")
