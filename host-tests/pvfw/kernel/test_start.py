"""The jump: the image in an embedded domain enters a kernel, which tells what it found."""

import re

import pytest
from fixtures import testkernel
from fixtures.typist import Typist, image_of

from pvxen.sink import Memory
from tools.image import build
from tools.imageconfig import ROOT
from xenpv import abi

SCRIPT = b"""#!pvboot
import struct
from pvfw.kernel import start

class Kernel:
    pass

head, kernel = hw.boot()[2][1], Kernel()
image = hw.mem(*head)
kernel.setup = bytes(image[0x1F1:0x268])
kernel.offset = (image[0x1F1] + 1) * 512
kernel.size = struct.unpack_from("<I", image, 0x1F4)[0] * 16
kernel.entry = 0x200
kernel.address, kernel.memory = struct.unpack_from("<QI", image, 0x258)
kernel.alignment = struct.unpack_from("<I", image, 0x230)[0] if image[0x234] else 0
kernel.initrd_max = struct.unpack_from("<I", image, 0x22C)[0]
kernel.cmdline_max = struct.unpack_from("<I", image, 0x238)[0]
initrds = hw.boot()[2][2:]
plan = start.Plan(kernel, [size for _, size in initrds], start.with_console(b"root=/dev/xvda1"))
hw.copy(plan.address, head[0] + kernel.offset, kernel.size)
for at, (initrd, size) in zip(plan.initrds, initrds):
    hw.copy(at, initrd, size)
await disk.read(0, 512)
await disk.close()
await plan.go(guest)
"""
SIZE = 64 << 20


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return image_of(build(tmp_path_factory.mktemp("image"), config=ROOT / "pvboot.yaml"))


class Booted:
    """A domain in which SCRIPT boots a kernel. facts: name to values; guest; reason; text."""

    def __init__(self, image, kernel, initrds=(), rsdp=True, **options):
        modules, contents, at = [], [SCRIPT, kernel, *initrds], 0x800000
        for content in contents:
            modules.append((at, len(content)))
            at += (len(content) + 4095) // 4096 * 4096
        self.typist = Typist(image, [], modules=tuple(modules), **options)
        self.guest = self.typist.guest
        for (place, _), content in zip(modules, contents, strict=True):
            self.guest.machine.ram[place : place + len(content)] = content
        self.guest.disk("xvda", Memory(1 << 20))
        self.guest.machine.on_idle = self.typist.type_on
        self.reason = image.run(self.guest)
        self.text = image.text
        found = re.findall(r"^kernel: (\w+) (.*)$", self.text, re.MULTILINE)
        self.facts = {}
        for name, value in found:
            number = value if name == "line" else int(value, 16)
            self.facts.setdefault(name, []).append(number)


@pytest.fixture
def boot(image, tmp_path):
    def of(initrds=(), address=testkernel.ADDRESS, relocatable=True, **options):
        kernel = testkernel.bzimage(tmp_path, address, relocatable)
        return Booted(image, kernel, initrds, **options)

    return of


def test_the_kernel_is_entered_as_linux_expects_it(boot):
    booted = boot()
    facts = booted.facts
    assert "done" in facts, booted.text
    assert facts["begin"] == [testkernel.ADDRESS]
    assert (facts["cs"], facts["ds"], facts["ss"]) == ([0x10], [0x18], [0x18])
    assert facts["flags"][0] & (1 << 9) == 0
    assert facts["loader"] == [0xFF]
    assert facts["header"] == [int.from_bytes(b"HdrS", "little")]
    assert facts["line"] == ["root=/dev/xvda1 console=hvc0"]
    assert facts["size"] == [0]
    assert booted.reason == abi.SHUTDOWN_poweroff


def test_nothing_of_xen_s_is_left_in_the_memory(boot):
    booted = boot()
    machine = booted.guest.machine
    assert machine.shared_info_page.gfn is None
    assert [frame.gfn for frame in machine.gnttab.frames if frame.gfn is not None] == []
    assert not machine.holes
    assert not machine.watchdogs
    assert machine._time_area is None


def test_initrds_stand_behind_each_other_with_zeros_between(boot):
    parts = b"abc" * 5000, b"x" * 4096, b"yz"
    booted = boot(initrds=parts)
    whole = b"".join(part + bytes(-len(part) % 4096) for part in parts[:-1]) + parts[-1]
    total = 0
    for byte in whole:
        total = (total * 31 + byte) % (1 << 64)
    assert booted.facts["size"] == [len(whole)]
    assert booted.facts["sum"] == [total]
    assert booted.facts["initrd"][0] % 4096 == 0


def test_a_guest_without_acpi_tables_gets_some(boot):
    booted = boot()
    facts = booted.facts
    assert facts["rsdp"] == [0x9F000]
    assert set(facts["wrong"]) == {0}
    assert facts["FACP"] == [268]
    assert facts["APIC"] == [44 + 8]
    ranges = list(zip(facts["range"], facts["end"], facts["type"], strict=True))
    assert ranges == [(0, 0x9F000, 1), (0x9F000, 0xA0000, 3), (0xA0000, 64 << 20, 1)]


def test_a_kernel_whose_place_is_not_free_goes_elsewhere(boot):
    begin = boot(address=0x200000).facts["begin"][0]
    assert begin % testkernel.ALIGNMENT == 0
    assert begin > 0x200000


def test_a_kernel_that_must_be_where_we_are_is_refused(boot):
    booted = boot(address=0x200000, relocatable=False)
    assert "XenError: no memory for the kernel: it needs 2048 KiB at 0x200000" in booted.text
    assert "done" not in booted.facts
