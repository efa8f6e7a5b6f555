"""The ACPI tables of a guest whose toolstack gave it none, as in hvmloader's place.

Used by start.py. They say that there is no hardware: a local APIC for each vCPU, no I/O APIC, no
PC devices; Linux then goes on as on a PVH guest.
Source: ACPI 6.4, 5.2 (RSDP, XSDT, FADT, MADT), 16.1 (\\_S5).
"""

import struct

PAGE_SIZE = 4096
# In the first MiB, where a map that hvmloader would have completed has no RAM, though there is.
ADDRESS = 0x9F000
TABLES = 3  # the type of a range of memory
RAM = 1
LOW_END = 0xA0000

OEM = b"PVBOOT"
LOCAL_APIC = 0xFEE00000
FADT_SIZE = 268
# Hardware-reduced; WBINVD works.
FLAGS = 1 << 20 | 1 << 0
# No VGA, no CMOS clock.
BOOT_ARCH = 1 << 2 | 1 << 5
# Name(\_S5, Package(4) {5, 5, 0, 0})
S5 = b"\x08_S5_\x12\x08\x04\x0a\x05\x0a\x05\x00\x00"
# An APIC's number is twice its vCPU's; from here on it is an x2APIC.
APIC_MAX = 0xFE
VCPUS_MAX = 240


def tables(address, vcpus):
    """Return the tables, one page at most, the root pointer first.

    Args:
        address: where they are to be, physical.
        vcpus: how many, 1 to VCPUS_MAX.
    """
    dsdt = _table(b"DSDT", 2, S5)
    madt = _table(b"APIC", 4, struct.pack("<II", LOCAL_APIC, 0) + _apics(vcpus))
    at = [address + 36]
    for size in (len(dsdt), len(madt), FADT_SIZE):
        at.append(at[-1] + (size + 7) // 8 * 8)
    parts = [_root(at[3])]
    parts += [dsdt, madt, _fadt(at[0]), _table(b"XSDT", 1, struct.pack("<QQ", at[2], at[1]))]
    page = bytearray(at[3] + len(parts[4]) - address)
    for place, part in zip([address] + at, parts):
        page[place - address : place - address + len(part)] = part
    return bytes(page)


def with_tables(memmap):
    """Return a memory map in which the tables' page has its type and low memory is RAM."""
    found = [(0, ADDRESS, RAM), (ADDRESS, PAGE_SIZE, TABLES)]
    for address, size, kind in memmap:
        first = max(address, LOW_END)
        if first < address + size:
            found.append((first, address + size - first, kind))
    return found


def _root(xsdt):
    """Return the root pointer, version 2, with its two checksums."""
    head = struct.pack("<8sB6sBI", b"RSD PTR ", 0, OEM, 2, 0)
    head = head[:8] + bytes([-sum(head) & 0xFF]) + head[9:]
    whole = head + struct.pack("<IQB3x", 36, xsdt, 0)
    return whole[:32] + bytes([-sum(whole) & 0xFF]) + whole[33:]


def _table(signature, revision, body):
    head = struct.pack(
        "<4sIBB6s8sI4sI",
        *(signature, 36 + len(body), revision, 0, OEM, b"PVBOOT  ", 1, b"PVBT", 1),
    )
    whole = bytearray(head + body)
    whole[9] = -sum(whole) & 0xFF
    return bytes(whole)


def _apics(vcpus):
    found = b""
    for number in range(vcpus):
        if 2 * number <= APIC_MAX:
            found += struct.pack("<BBBBI", 0, 8, number, 2 * number, 1)
        else:
            found += struct.pack("<BBHIII", 9, 16, 0, 2 * number, 1, number)
    return found


def _fadt(dsdt):
    body = bytearray(FADT_SIZE - 36)
    struct.pack_into("<H", body, 109 - 36, BOOT_ARCH)
    struct.pack_into("<I", body, 112 - 36, FLAGS)
    struct.pack_into("<I", body, 40 - 36, dsdt)
    struct.pack_into("<Q", body, 140 - 36, dsdt)
    return _table(b"FACP", 5, bytes(body))
