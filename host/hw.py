"""The module `hw` for CPython: the image's primitives over a machine in this process.

Imported by drivers/ and firmware/, for which it is the same as the image's own. attach() names the
machine to act on; physical address 0 is the first byte of its RAM. hw.c, classify.c, crc32.c,
pack.c, seal.c and verify.c of boot/hw, the same C as in the image, do the work, compiled as
_pvdump_hw (in the tree by tools/hwlib.py). The rule: C checks nothing, so every range is checked
here first. A range that leaves the RAM is a ValueError that names it; a value that does not fit its
field is an OverflowError, mostly cffi's. boot/hw/number.h has the same rule for the image.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from _pvdump_hw import ffi, lib

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

U32 = 0xFFFFFFFF
U64 = 0xFFFFFFFFFFFFFFFF
FILTER_SIZE = 42 * 8  # of struct hw_filter
KEY_SIZE = 32
TAG_SIZE = 16
PIECE_MAX = 65536
SIGNATURE_SIZE = 64
BLAKE2B_STATE = 256

_machine: Any = None
_reread: Callable[[int, int], int] | None = None
_view = memoryview(bytearray(0))


@contextlib.contextmanager
def attached(machine: Any) -> Iterator[None]:
    """Attach `machine` within the block, and afterwards what was attached before."""
    before = _machine
    attach(machine)
    try:
        yield
    finally:
        if before is not None:
            attach(before)


def attach(machine: Any) -> None:
    """Let this module act on `machine` until the next attach().

    machine: has ram (mmap or bytearray), hypercall(nr, args), now, alloc_pages,
    free_pages, boot, xen, vcpu, shared_info, watchdog, suspend and console_flush; halt and
    fault where a program that calls them is to end; reread(addr, value) where a u32 may change
    while it is read.
    """
    global _machine, _view, _reread
    _machine = machine
    _reread = getattr(machine, "reread", None)
    _view = memoryview(machine.ram)
    lib.hw_base = int(ffi.cast("uintptr_t", ffi.from_buffer(_view)))


def _check(addr: int, length: int) -> None:
    if addr < 0 or length < 0 or addr + length > len(_view):
        raise ValueError(
            f"access to {length} bytes at 0x{addr & U64:x}: "
            f"outside the RAM of 0x{len(_view):x} bytes"
        )


def mem(addr: int, length: int) -> memoryview:
    """Return the bytes at addr; reads and writes go to the RAM itself."""
    _check(addr, length)
    return _view[addr : addr + length]


def rd16(addr: int) -> int:
    """Read a little-endian u16 in one access."""
    _check(addr, 2)
    return lib.hw_rd16(addr)


def rd32(addr: int) -> int:
    """Read a little-endian u32 in one access."""
    _check(addr, 4)
    value = lib.hw_rd32(addr)
    return value if _reread is None else _reread(addr, value)


def rd64(addr: int) -> int:
    """Read a little-endian u64 in one access."""
    _check(addr, 8)
    return lib.hw_rd64(addr)


def wr32(addr: int, value: int) -> None:
    """Write a little-endian u32 in one access."""
    _check(addr, 4)
    lib.hw_wr32(addr, value)


rmb = lib.hw_rmb
wmb = lib.hw_wmb
mb = lib.hw_mb


def test_and_clear_bit(addr: int, nr: int) -> bool:
    """Clear bit nr of the bit field at addr in one atomic step.

    Args:
        addr: of the little-endian field.
        nr: number of the bit, from the lowest of the first byte on.

    Returns: whether the bit was set.
    """
    word = nr // 64 if 0 <= nr <= U32 else 0  # cffi refuses what does not fit
    _check(addr, (word + 1) * 8)
    return bool(lib.hw_test_and_clear_bit(addr, nr))


def copy(dst: int, src: int, length: int) -> None:
    """Copy `length` bytes from src to dst; the ranges may overlap."""
    _check(dst, length)
    _check(src, length)
    lib.hw_copy(dst, src, length)


def _check_refs(table: int, refs: int, n: int, size: int) -> None:
    _check(refs, 4 * n)
    for ref in _view[refs : refs + 4 * n].cast("I"):
        _check(table + size * ref, size)


def grant_fill(table: int, refs: int, n: int, domid: int, gfn: int, flags: int) -> None:
    """Grant n consecutive frames in a table of version 1.

    Args:
        table: address of the table.
        refs: address of a u32 array of n references, whose entries are filled.
        n: number of frames.
        domid: who gets them.
        gfn: the first frame.
        flags: GTF_* of each entry.
    """
    _check_refs(table, refs, n, 8)
    lib.hw_grant_fill(table, refs, n, domid, gfn, flags)


def grant_end(table: int, refs: int, n: int) -> int:
    """End n grants in a table of version 1, but for those that the peer has mapped.

    Args:
        table: address of the table.
        refs: address of a u32 array of n references; those in use are moved to its front.
        n: number of references.

    Returns: the number of references in use.
    """
    _check_refs(table, refs, n, 8)
    return lib.hw_grant_end(table, refs, n)


def grant_fill_v2(table: int, refs: int, n: int, domid: int, gfn: int, flags: int) -> None:
    """Grant n consecutive frames in a table of version 2; see grant_fill."""
    _check_refs(table, refs, n, 16)
    lib.hw_grant_fill_v2(table, refs, n, domid, gfn, flags)


def grant_end_v2(table: int, status: int, refs: int, n: int) -> int:
    """End n grants in a table of version 2; see grant_end.

    status: address of the status word of reference 0.
    """
    _check_refs(table, refs, n, 16)
    _check_refs(status, refs, n, 2)
    return lib.hw_grant_end_v2(table, status, refs, n)


def seg_fill(dst: int, refs: int, n: int, first_sect: int, last_sect: int) -> None:
    """Write n blkif segments of whole pages, but for the ends of the first and the last.

    Args:
        dst: address of the segments, 8 bytes each.
        refs: address of a u32 array of n references.
        n: number of segments.
        first_sect: first sector of the first page, 0 to 7.
        last_sect: last sector of the last page, 0 to 7.
    """
    _check(dst, 8 * n)
    _check(refs, 4 * n)
    lib.hw_seg_fill(dst, refs, n, first_sect, last_sect)


def crc32(data: ReadableBuffer, crc: int = 0) -> int:
    """Return the CRC-32 of data, as zlib has it.

    crc: that of what stands before data.
    """
    content = ffi.from_buffer("uint8_t[]", data)
    return lib.hw_crc32(crc, content, len(content))


def pack(
    state: WriteableBuffer,
    keep: ReadableBuffer | None,
    out: WriteableBuffer,
    table: WriteableBuffer,
) -> None:
    """Compress frames one by one until all are done, or the next one might not fit.

    It goes on where `state` says, and says there how far it came: the rest when it is called again.

    Args:
        state: five u64, such as an array("Q"): number of the next frame; frames left; number of the
            next frame's bit in keep; bytes used in out; entries used in table.
        keep: frames whose bit is clear are passed over, bit 0 is the lowest of the first byte;
            None: all bits are set.
        out: gets the pages' data, one behind the other. Fewer than 4096 bytes free: it is full.
        table: gets a u64 for each page or run of zeros: bits 0-15 size of its data, below 4096 a
            zstd frame, 4096 the page itself, 0 for zeros, which have none; bits 16-31 for zeros the
            number of pages behind the first; bits 32-63 number of the first frame.

    Raises: ValueError for frames that are no memory, bits that keep does not have, or a state that
        says more than there is; OverflowError for a frame's number of more than 32 bits.
    """
    numbers = ffi.from_buffer("uint64_t[]", state, require_writable=True)
    space = ffi.from_buffer("uint8_t[]", out, require_writable=True)
    entries = ffi.from_buffer("uint8_t[]", table, require_writable=True)
    bits = ffi.NULL if keep is None else ffi.from_buffer("uint8_t[]", keep)
    if memoryview(state).nbytes != 40:
        raise ValueError("pack: the state is not five numbers of 64 bits")
    gfn, count, bit, used, made = numbers
    if gfn + count > 1 << 32:
        raise OverflowError("a frame's number has 32 bits")
    _check(gfn * 4096, count * 4096)
    if keep is not None and bit + count > 8 * len(bits):
        raise ValueError("pack: keep has no bits for all frames")
    if used > len(space) or made > len(entries) // 8:
        raise ValueError("pack: more used than there is")
    lib.hw_pack(numbers, bits, space, len(space), entries, len(entries))


def classify(filter_: int, pages: int, pfn: int, n: int, keep: int) -> int:
    """Judge n pages of the crashed kernel by their struct pages, as boot/hw/classify.h has it.

    Args:
        filter_: address of the struct hw_filter.
        pages: address of the first struct page; the others follow it.
        pfn: the first page's number.
        n: number of pages; with 0 only the block goes on that an earlier call ended in.
        keep: address of the bits of the filter's window, cleared for the pages left out.

    Returns: the first pfn that is not judged yet.
    """
    _check(filter_, FILTER_SIZE)
    base, end, size = struct.unpack_from("<3Q", _view, filter_)
    if not base <= pfn <= end or not 0 <= n <= end - pfn:
        raise ValueError(f"{n} pages at 0x{pfn:x} are not in the filter's window")
    _check(pages, n * size)
    _check(keep, (end - base + 7) // 8)
    return lib.hw_classify(filter_, pages, pfn, n, keep)


def run_end(bits: int, bit: int, end: int) -> int:
    """Find where a run of equal bits ends.

    Args:
        bits: address of the bits, from the lowest of the first byte on.
        bit: number of the run's first.
        end: number behind the last that counts, more than `bit`.

    Returns: the number of the first that differs, else `end`.
    """
    if not 0 <= bit < end:
        raise ValueError(f"no bits from {bit} to {end}")
    _check(bits, (end + 7) // 8)
    return lib.hw_run_end(bits, bit, end)


def _key(data: ReadableBuffer) -> Any:
    content = ffi.from_buffer("uint8_t[]", data)
    if len(content) != KEY_SIZE:
        raise ValueError("a key has 32 bytes")
    return content


def x25519(secret: ReadableBuffer, point: ReadableBuffer) -> bytes:
    """Return what a secret key and a public one share, 32 bytes; RFC 7748 has it.

    All zeros for a public key of low order, which everybody can reckon.
    """
    shared = ffi.new("uint8_t[]", KEY_SIZE)
    lib.hw_x25519(shared, _key(secret), _key(point))
    return bytes(shared)


def seal(
    key: ReadableBuffer,
    counter: int,
    is_last: bool,
    piece: ReadableBuffer,
    out: WriteableBuffer,
) -> None:
    """Encrypt a piece of an age file by ChaCha20-Poly1305.

    Args:
        key: 32 bytes.
        counter: number of the piece, 64 bits; a key takes each number once.
        is_last: whether it is the file's last piece.
        piece: 65536 bytes at most.
        out: gets the ciphertext and, behind it, a tag of 16 bytes; has room for just that.

    Raises: ValueError for other sizes.
    """
    secret = _key(key)
    clear = ffi.from_buffer("uint8_t[]", piece)
    sealed = ffi.from_buffer("uint8_t[]", out, require_writable=True)
    if len(clear) > PIECE_MAX or len(sealed) != len(clear) + TAG_SIZE:
        raise ValueError("seal: a piece has 65536 bytes at most, out 16 more")
    lib.hw_seal(sealed, secret, counter, bool(is_last), clear, len(clear))


def blake2b_update(state: WriteableBuffer, piece: ReadableBuffer) -> None:
    """Hash a piece of a content by BLAKE2b.

    Args:
        state: 256 bytes, all zeros before the first piece.
        piece: of any size.

    Raises: ValueError for a state of another size.
    """
    content = ffi.from_buffer("uint8_t[]", piece)
    lib.hw_blake2b_update(_sized(state, BLAKE2B_STATE, True), content, len(content))


def blake2b_final(state: ReadableBuffer) -> bytes:
    """Return the BLAKE2b hash of all pieces, 64 bytes; the state stays as it is."""
    found = ffi.new("uint8_t[]", 64)
    lib.hw_blake2b_final(_sized(state, BLAKE2B_STATE), found)
    return bytes(found)


def ed25519_check(signature: ReadableBuffer, key: ReadableBuffer, message: ReadableBuffer) -> bool:
    """Tell whether an Ed25519 signature (64 bytes) is that of a public key (32 bytes); RFC 8032.

    Raises: ValueError for other sizes.
    """
    content = ffi.from_buffer("uint8_t[]", message)
    by, of = _sized(signature, SIGNATURE_SIZE), _sized(key, KEY_SIZE)
    return bool(lib.hw_ed25519_check(by, of, content, len(content)))


def _sized(data: ReadableBuffer, size: int, is_written: bool = False) -> Any:
    content = ffi.from_buffer("uint8_t[]", data, require_writable=is_written)
    if len(content) != size:
        raise ValueError(f"{size} bytes expected")
    return content


def entropy() -> bytes:
    """Return what the machine has of randomness, of any length: perhaps little, perhaps none.

    The CPU's random numbers where it has them, its time stamp counter, and the random bytes of the
    kernel that loaded the image where it gave any.
    """
    return _machine.entropy()


def hypercall(nr: int, *args: int) -> int:
    """Make a hypercall. Returns Xen's answer, a negative errno when it refuses."""
    return _machine.hypercall(nr, args)


def now() -> int:
    """Return Xen's system time in ns."""
    return _machine.now()


def alloc_pages(n: int) -> int:
    """Take n consecutive pages, zeroed. Returns their physical address.

    Raises MemoryError when there are not as many left.
    """
    return _machine.alloc_pages(n)


def free_pages(addr: int, n: int) -> None:
    """Give back n pages that alloc_pages gave; nobody else may have them mapped any more.

    Raises ValueError when they are not taken pages.
    """
    _machine.free_pages(addr, n)


def boot() -> tuple[Any, ...]:
    """Return what the loader gave.

    Returns: (door, cmdline, modules, memmap, region): "pvh" or "bzimage"; bytes; (address, bytes)
        of each module; (address, bytes, E820 type) of each range of memory; (start, end) of the
        memory that the image occupies.
    """
    return _machine.boot()


def xen() -> int:
    """Return Xen's base CPUID leaf, 0 when there is no Xen."""
    return _machine.xen()


def vcpu() -> int:
    """Return the number of the vCPU that runs, which is the one that crashed."""
    return _machine.vcpu()


def shared_info() -> int:
    """Return the physical address of the mapped shared_info page, 0 without Xen."""
    return _machine.shared_info()


def watchdog(seconds: int) -> None:
    """Let Xen shut this domain down unless called again within `seconds`; 0 disarms."""
    _machine.watchdog(seconds)


def rsdp() -> int:
    """Return the physical address of ACPI's root pointer, 0 where the loader gave none."""
    return _machine.rsdp


def jump(entry: int, params: int) -> None:
    """Enter a kernel by its 64-bit entry; this never returns.

    Args:
        entry: physical address, below 4 GiB.
        params: physical address of boot_params.
    """
    _machine.jump(entry, params)


def suspend() -> int:
    """Suspend this domain; return when it goes on, perhaps as another one on another host.

    What the image's C uses of Xen is set up again then: hypercalls, shared page, clock, watchdog
    and console. All other event channels and grants may be gone.

    Returns: Xen's answer, 1 where the same domain goes on and Xen says so, 0 elsewhere, a negative
        errno when it refuses.
    """
    return _machine.suspend()


def console_flush(ms: int) -> None:
    """Wait until the console's reader has taken everything, for at most `ms` milliseconds."""
    _machine.console_flush(ms)


def halt() -> None:
    """Halt the CPU; this never returns."""
    _machine.halt()


def fault(kind: str) -> None:
    """Fail on purpose: "page", "ud" or "hang"."""
    _machine.fault(kind)
