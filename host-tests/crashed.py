"""A crashed guest on the embedded machine, for tests of what the image does with it.

The "crashed Linux" is 32 MiB of patterned memory with an elfcorehdr, a store and a disk as the
toolstack leaves them.
"""

import random
import struct

import pytest

from pvdump.xen.guest import Guest
from pvdump.xen.machine import Shutdown
from pvdump.xen.sink import Memory
from pvfw import main, target

SIZE = 32 << 20
AT = 0x1800000  # elfcorehdr, inside the crash region
REGION = (0x1900000, 0x1D00000)
INFO = b"OSRELEASE=6.1.0-test\nPAGESIZE=4096\n"
# (vaddr, paddr, where it is read, size): kernel text, low memory by its backup, the rest.
LOADS = (
    (0xFFFFFFFF81000000, 0x400000, 0x400000, 0x100000),
    (0xFFFF888000001000, 0x1000, 0x1810000, 0x9EC00),
    (0xFFFF888000100000, 0x100000, 0x100000, 0x1700000),
    (0xFFFF888001E00000, 0x1E00000, 0x1E00000, 0x100400),
)
UUID = bytes(range(16))
GOOD = f"elfcorehdr=0x{AT:x} pvdump.disk=xvdb pvdump.then=poweroff"


class Crash:
    """A guest that crashed. disk_size: bytes; superblock: bytes, or None for a good one."""

    def __init__(self, cmdline=None, disk_size=SIZE, superblock=None, guest=None, **faults):
        line = cmdline
        if line is None:
            line = GOOD
        options = {"door": "bzimage", "region": REGION, "vcpu": 1, **(guest or {})}
        self.guest = Guest(SIZE, cmdline=line.encode(), **options)
        ram = self.guest.machine.ram
        noise = random.Random(7).randbytes(1 << 20)
        for at in range(1 << 20, 0x1800000, 1 << 20):
            ram[at : at + len(noise)] = noise
            struct.pack_into("<Q", ram, at, at)
        ram[0x1810000:0x1810010] = b"low memory is me"
        self._elfcorehdr(ram)
        self.disk = Memory(disk_size)
        good = target.Superblock(UUID, disk_size).encode()
        self.disk.data[:512] = good if superblock is None else superblock
        self.before = bytes(self.disk.data)
        self.back = self.guest.disk("xvdb", self.disk, **faults)

    def _elfcorehdr(self, ram):
        note = struct.pack("<III", 11, len(INFO), 0) + b"VMCOREINFO\0\0" + INFO
        note += bytes(-len(note) % 4)
        ram[AT + 0x1000 : AT + 0x1000 + len(note)] = note
        count = 1 + len(LOADS)
        raw = struct.pack(
            "<4sBBBB8sHHIQQQIHHHHHH",
            b"\x7fELF", 2, 1, 1, 0, bytes(8), 4, 62, 1, 0, 64, 0, 0, 64, 56, count, 0, 0, 0,
        )  # fmt: skip
        at = AT + 0x1000
        raw += struct.pack("<IIQQQQQQ", 4, 0, at, 0, at, 0x1000, 0x1000, 4)
        for vaddr, paddr, offset, size in LOADS:
            raw += struct.pack("<IIQQQQQQ", 1, 7, offset, vaddr, paddr, size, size, 0)
        ram[AT : AT + len(raw)] = raw
        self.notes = note

    def run(self):
        """main() to the end of the domain. Returns the shutdown reason."""
        self.memory = bytes(self.guest.machine.ram)
        with pytest.raises(Shutdown) as ended:
            main.main()
        return ended.value.reason

    def superblock(self):
        return target.decode(bytes(self.disk.data[:512]))

    def reported(self, key):
        return self.guest.store.read(f"{self.guest.home}/data/pvdump/{key}", "")

    def vmcore(self):
        block = self.superblock()
        start = block.data_offset
        return bytes(self.disk.data[start : start + block.dump_size])
