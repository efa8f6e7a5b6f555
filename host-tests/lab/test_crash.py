"""A real Linux on a real Xen panics; the vmcore on its PV disk is read by the field's own tools."""

import hashlib
import mmap
import os
import re

import drgn
import pytest
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.sched import task_cpu
from elftools.elf.elffile import ELFFile
from fixtures import vmcorefilter
from fixtures.xens import ONE, XENS

from lab import linux, readers, symbols
from lab.xen import Xen
from pvdump import cli

from pvdump.dump.collect import collect
from pvdump.dump.info import read_superblock
from pvdump.dump.prepare import prepare
from pvfw import superblock

pytestmark = pytest.mark.xen

PAGE = 4096
NOISE_MIB = 8
# Over all of them: each way to load, each backend, each vCPU.
WAYS = [
    {"file_mode": False, "backend": "blkback", "cpu": 0},
    {"file_mode": True, "backend": "qdisk", "cpu": 1},
    {"file_mode": True, "backend": "blkback", "cpu": 1},
]
each_way = pytest.mark.matrix(
    xen=XENS, dump=WAYS, apart=True, together=True, indirect=["xen", "dump"]
)
LINE = "pvdump.disk=xvdb pvdump.then=poweroff"


@pytest.fixture(scope="module")
def xen(request, built):
    """A Xen that has booted, where other files' tests go on from a saved one."""
    with Xen(*request.param.split()) as running:
        yield running


def dying(file_mode, cpu):
    """The lines of a guest that loads the image and panics on a vCPU."""
    return f"{linux.kexec('/pvdump.bin', LINE, file_mode)} || poweroff -f\n{linux.crash(cpu)}\n"


def crash(xen, guest, disk, *, file_mode, backend, cpu, files=None, **fields):
    """Boot a Debian guest and have it panic; returns its handle once its crash kernel has ended."""
    domain = xen.boot(
        guest(
            "linux-crash.yaml",
            run=dying(file_mode, cpu),
            disks=[{"vdev": "xvdb", "file": str(disk), "backend": backend}],
            files={"pvdump.bin": "image-bin", **(files or {})},
            **fields,
        )
    )
    assert domain.wait_end() == "poweroff"
    return domain


def crash_at_prompt(domain, disk, file_mode):
    """Have a guest at its prompt panic; returns once its crash kernel has ended it."""
    domain.attach("xvdb", disk)
    domain.bring("xvdb", {"pvdump.bin": "image-bin"})
    domain.run(dying(file_mode, 0))
    assert domain.wait_end() == "poweroff"


def opened(vmcore, suite):
    """A vmcore in drgn, with the kernel's debug symbols."""
    program = drgn.Program()
    program.set_core_dump(vmcore)
    program.load_debug_info([symbols.vmlinux(suite)])
    return program


def page_digests(path):
    with path.open("rb") as stream, mmap.mmap(stream.fileno(), 0, prot=mmap.PROT_READ) as view:
        return {hashlib.blake2b(view[i : i + PAGE]).digest() for i in range(0, len(view), PAGE)}


def memory_digests(dump, vmcore):
    """What a dump holds, as drgn reads it, in each range of RAM that a vmcore names."""
    program = drgn.Program()
    program.set_core_dump(dump)
    with vmcore.open("rb") as stream:
        loads = list(ELFFile(stream).iter_segments("PT_LOAD"))
        ranges = [(load["p_paddr"], load["p_filesz"]) for load in loads]
    digests = []
    for paddr, size in ranges:
        digest = hashlib.blake2b()
        for at in range(paddr, paddr + size, 1 << 20):
            part = min(1 << 20, paddr + size - at)
            digest.update(program.read(at, part, physical=True))
        digests.append(digest.digest())
    return digests


@pytest.fixture(scope="module")
def dump(request, xen, guest, tmp_path_factory):
    """A crash in one of the ways. Gives (way, console, disk, vmcore, noise)."""
    folder = tmp_path_factory.mktemp("dump")
    disk = folder / "target.img"
    prepare(disk, size=512 << 20)
    noise = folder / "noise"
    noise.write_bytes(os.urandom(NOISE_MIB << 20))
    way = {**request.param, "suite": xen.suite}
    domain = crash(xen, guest, disk, files={"noise": str(noise)}, **request.param)
    vmcore = folder / "vmcore"
    assert collect(disk, vmcore).missing == 0
    return way, domain.console(), disk, vmcore, noise


@each_way
def test_the_superblock_says_complete_and_which_vcpu_crashed(dump):
    way, console, disk, _, _ = dump
    block = read_superblock(disk)
    assert block.state == superblock.COMPLETE
    assert block.crash_vcpu == way["cpu"]
    assert block.release == linux.release(way["suite"])
    assert "pvdump: dump complete" in console


@each_way
def test_makedumpfile_reads_the_kernel_log(dump, tmp_path):
    log = readers.dmesg(dump[3], tmp_path / "dmesg")
    assert "sysrq: Trigger a crash" in log
    assert "Kernel panic - not syncing: sysrq triggered crash" in log


@each_way
def test_collect_gives_the_kernel_log_as_makedumpfile_does(dump, tmp_path):
    _, _, disk, vmcore, _ = dump
    out = tmp_path / "log"
    assert cli.main(["collect", "--log", str(disk), str(out)]) == 0
    assert out.read_text() == readers.dmesg(vmcore, tmp_path / "dmesg")


@each_way
def test_makedumpfile_finds_every_structure_it_needs_to_filter(dump, tmp_path):
    out = tmp_path / "filtered"
    readers.makedumpfile("-d", "31", "-z", dump[3], out)
    assert 1 << 20 < out.stat().st_size < dump[3].stat().st_size // 4


@each_way
@pytest.mark.parametrize("level", [1, 2, 4, 8, 16, 31])
def test_the_page_filter_makes_the_choice_that_makedumpfile_makes(dump, tmp_path, level):
    core = vmcorefilter.Vmcore(dump[3])
    out = tmp_path / "filtered"
    readers.makedumpfile("-d", str(level), "-z", dump[3], out)
    ram, has = vmcorefilter.bitmaps(out)
    found, _, pages = core.left_out(level)
    assert pages.unjudged == 0
    # makedumpfile 1.7.6 keeps the free pages of Linux 6.10 and newer.
    free = vmcorefilter.free_pages(core) if dump[0]["suite"] == "trixie" and level & 16 else set()
    assert found - free == (ram - has) - free


@each_way
def test_the_page_filter_leaves_out_as_free_what_the_free_lists_hold(dump):
    core = vmcorefilter.Vmcore(dump[3])
    found, counts, _ = core.left_out(16)
    assert found == vmcorefilter.free_pages(core)
    assert counts["free"] == len(found)


@each_way
def test_drgn_names_release_panic_and_the_crashed_task_s_stack(dump):
    way, _, _, vmcore, _ = dump
    program = opened(vmcore, way["suite"])
    release = program["init_uts_ns"].name.release.string_().decode()
    assert release == linux.release(way["suite"])
    assert b"Kernel panic - not syncing: sysrq triggered crash" in get_dmesg(program)
    thread = program.crashed_thread()
    assert task_cpu(thread.object) == way["cpu"]
    assert thread.object.comm.string_() in (b"sh", b"busybox")
    frames = [frame.name for frame in thread.stack_trace()]
    assert "sysrq_handle_crash" in frames
    assert "write_sysrq_trigger" in frames


@each_way
def test_every_page_of_a_file_that_the_guest_held_is_in_the_vmcore(dump):
    _, _, _, vmcore, noise = dump
    assert not page_digests(noise) - page_digests(vmcore)


@each_way
def test_its_kdump_file_says_the_same_to_makedumpfile_and_drgn(dump, tmp_path):
    way, _, disk, vmcore, _ = dump
    kdump = tmp_path / "kdump"
    assert collect(disk, kdump, form="kdump").reason == ""
    assert kdump.stat().st_size < vmcore.stat().st_size // 2
    log = readers.dmesg(kdump, tmp_path / "dmesg")
    assert "Kernel panic - not syncing: sysrq triggered crash" in log
    program = opened(kdump, way["suite"])
    assert b"Kernel panic - not syncing: sysrq triggered crash" in get_dmesg(program)
    thread = program.crashed_thread()
    assert task_cpu(thread.object) == way["cpu"]
    assert "sysrq_handle_crash" in [frame.name for frame in thread.stack_trace()]
    assert memory_digests(kdump, vmcore) == memory_digests(vmcore, vmcore)


def test_a_disk_without_superblock_is_refused_and_keeps_every_byte(at_prompt, tmp_path):
    disk = tmp_path / "precious.img"
    disk.write_bytes(os.urandom(64 << 20))
    before = hashlib.blake2b(disk.read_bytes()).digest()
    domain = at_prompt(*ONE, "hvm")
    crash_at_prompt(domain, disk, file_mode=True)
    assert "dump failed: xvdb refused, nothing on it was changed" in domain.console()
    assert hashlib.blake2b(disk.read_bytes()).digest() == before


@pytest.mark.matrix(xen=ONE, indirect=["xen"])
def test_memory_that_a_balloon_driver_gave_back_is_left_out_and_counted(xen, guest, target):
    more = {"memory": 256, "extra": {"maxmem": 384}}
    domain = crash(xen, guest, target, file_mode=True, backend="blkback", cpu=0, **more)
    holes = re.search(r"pvdump: (\d+) pages had no memory behind them", domain.console())
    assert int(holes[1]) > 64 << 8
    assert read_superblock(target).state == superblock.COMPLETE


def test_a_disk_that_is_full_half_way_has_a_partial_dump_and_says_why(at_prompt, target, tmp_path):
    limit = 64 << 20
    domain = at_prompt(*ONE, "hvm")
    domain.xen.attach(target, full_at=limit // 512)
    crash_at_prompt(domain, target, file_mode=False)
    assert "dump failed: device/vbd/51728: write of sector" in domain.console()
    block = read_superblock(target)
    assert block.state == superblock.PARTIAL
    assert "failed: status -1 (ERROR)" in block.reason
    assert limit - (4 << 20) < block.data_offset + block.written <= limit
    done = collect(target, tmp_path / "vmcore")
    assert (done.size, done.missing) == (block.written, block.dump_size - block.written)
    with (tmp_path / "vmcore").open("rb") as stream:
        elf = ELFFile(stream)
        assert elf["e_flags"] & 1
        sizes = [s["p_filesz"] <= s["p_memsz"] for s in elf.iter_segments("PT_LOAD")]
    assert all(sizes)
    # The kernel's own pages came first, and its log is among them.
    program = opened(tmp_path / "vmcore", domain.xen.suite)
    assert b"Kernel panic - not syncing: sysrq triggered crash" in get_dmesg(program)
