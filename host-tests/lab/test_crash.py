"""A real Linux on a real Xen panics; the dump on its PV disk is read by the field's own tools.

What the dump must hold is known from dom0, which reads the domain's memory once it has halted.
"""

import hashlib
import os
import re
from datetime import UTC, datetime
from types import SimpleNamespace

import drgn
import pytest
from drgn.helpers.linux.module import for_each_module
from drgn.helpers.linux.pid import for_each_task
from drgn.helpers.linux.printk import get_dmesg
from drgn.helpers.linux.sched import task_cpu
from drgn.helpers.linux.slab import find_slab_cache, slab_cache_for_each_allocated_object
from fixtures import crashtool, domainmemory, vmcorefilter
from fixtures.xens import ONE, XENS

from lab import LabError, linux, packages, readers, symbols
from lab.xen import Xen
from pvdump import cli
from pvdump.dump.collect import collect, collect_log
from pvdump.dump.info import read_superblock
from pvdump.dump.prepare import prepare
from pvdump.report.corefile import CoreFile
from pvdump.report.gather import gather
from pvdump.report.program import Core
from pvdump.report.stacks import Stacks
from pvdump.report.tasks import Tasks
from pvdump.report.variables import VARIABLES
from pvfw import superblock

pytestmark = pytest.mark.xen

PAGE = 4096
# Over all of them: each way to load, each backend, each vCPU, each way to store pages.
WAYS = [
    {
        "file_mode": False,
        "backend": "blkback",
        "cpu": 0,
        "more": "pvdump.level=0 pvdump.compress=none",
    },
    {"file_mode": True, "backend": "qdisk", "cpu": 1, "more": ""},
    {"file_mode": True, "backend": "blkback", "cpu": 1, "more": "pvdump.level=31"},
]
# Kernels that are neither of the machine's releases: 5.10, and Debian's newest.
OTHERS = [{**WAYS[1], "suite": suite} for suite in packages.GUESTS]
each_way = pytest.mark.matrix(
    xen=XENS,
    dump=WAYS,
    more={"dump": OTHERS},
    apart=True,
    together=True,
    indirect=["xen", "dump"],
)
LINE = "pvdump.disk=xvdb pvdump.then=poweroff"


@pytest.fixture(scope="module")
def xen(request, built):
    """A Xen that has booted, where other files' tests go on from a saved one."""
    with Xen(*request.param.split()) as running:
        yield running


def dying(file_mode, cpu, more="", then=""):
    """The lines of a guest that loads the image, runs `then`, and panics on a vCPU."""
    load = linux.kexec("/pvdump.bin", f"{LINE} {more}".strip(), file_mode)
    return f"{load} || poweroff -f\n{then}\n{linux.crash(cpu)}\n"


def crash(xen, guest, disk, *, file_mode, backend, cpu, more="", then="", files=None, **fields):
    """Boot a Debian guest and have it panic; returns its handle once its crash kernel has ended."""
    domain = xen.boot(
        guest(
            "linux-crash.yaml",
            run=dying(file_mode, cpu, more, then),
            disks=[{"vdev": "xvdb", "file": str(disk), "backend": backend}],
            files={"pvdump.bin": "image-bin", **(files or {})},
            **fields,
        )
    )
    assert domain.wait_end() == "poweroff"
    return domain


def crash_at_prompt(domain, disk, file_mode, more=""):
    """Have a guest at its prompt panic; returns once its crash kernel has ended it."""
    domain.attach("xvdb", disk)
    domain.bring("xvdb", {"pvdump.bin": "image-bin"})
    domain.run(dying(file_mode, 0, more))
    assert domain.wait_end() == "poweroff"


def opened(vmcore, suite):
    """A vmcore in drgn, with the kernel's debug symbols."""
    program = drgn.Program()
    program.set_core_dump(vmcore)
    program.load_debug_info([symbols.vmlinux(suite)])
    return program


def collected(disk, out, *options):
    """Have `pvdump collect` make a file of a dump that is whole."""
    assert cli.main(["collect", *options, str(disk), str(out)]) == 0
    return out


@pytest.fixture(scope="module")
def dump(request, xen, guest, tmp_path_factory):
    """A crash in one of the ways.

    Gives: way; console; disk; kdump and elf, what collect made; has, the frames in them; ram, all
    frames of RAM; full, the ELF vmcore with what dom0 read of the halted domain in its holes;
    wrong, the frames in which it says another thing than dom0.
    """
    folder = tmp_path_factory.mktemp("dump")
    disk = folder / "target.img"
    prepare(disk, size=512 << 20)
    more = {"on_poweroff": "preserve", **request.param}
    domain = crash(xen, guest, disk, **more)
    memory = domainmemory.read(domain, domain.guest.memory)
    domain.destroy()
    elf = collected(disk, folder / "elf", "--format", "elf")
    kdump = collected(disk, folder / "kdump")
    ram, has = vmcorefilter.bitmaps(kdump)
    full = folder / "full"
    wrong = domainmemory.fill(elf, full, has, memory)
    memory.unlink()
    return SimpleNamespace(
        way={"suite": xen.suite, **request.param},
        filters="level=0" not in request.param["more"],
        console=domain.console(),
        disk=disk,
        kdump=kdump,
        elf=elf,
        full=full,
        ram=ram,
        has=has,
        wrong=wrong,
    )


@each_way
def test_the_superblock_says_complete_and_which_vcpu_crashed(dump):
    block = read_superblock(dump.disk)
    assert block.state == superblock.COMPLETE
    assert block.crash_vcpu == dump.way["cpu"]
    assert block.release == linux.release(dump.way["suite"])
    assert "pvdump: dump complete" in dump.console


@each_way
def test_every_page_of_the_dump_is_as_dom0_reads_it_in_the_halted_domain(dump):
    assert not dump.wrong
    assert len(dump.has) > 1000


@each_way
def test_makedumpfile_reads_the_kernel_log_of_both_formats(dump, tmp_path):
    for file in (dump.kdump, dump.elf):
        log = readers.dmesg(file, tmp_path / "dmesg")
        assert "sysrq: Trigger a crash" in log
        assert "Kernel panic - not syncing: sysrq triggered crash" in log


@each_way
def test_collect_gives_the_kernel_log_as_makedumpfile_does(dump, tmp_path):
    out = collected(dump.disk, tmp_path / "log", "--log")
    assert out.read_text() == readers.dmesg(dump.full, tmp_path / "dmesg")


@each_way
def test_a_dump_lacks_just_the_pages_that_its_level_leaves_out(dump, tmp_path):
    if not dump.filters:
        assert dump.has == dump.ram
        return
    out = tmp_path / "filtered"
    readers.makedumpfile("-d", "31", "-z", dump.full, out)
    ram, has = vmcorefilter.bitmaps(out)
    free, tails = unjudged(dump, 31)
    assert dump.ram == ram
    assert dump.has - free - tails == has - free - tails
    assert dump.has & free == set()


def unjudged(dump, level):
    """The pages that makedumpfile 1.7.6 does not know.

    They are the free ones of Linux 6.10 on, which it keeps, and those in large pages behind the
    first, of Linux 7.1 on, some of which it takes for user pages.
    """
    core = vmcorefilter.Vmcore(dump.full)
    known = dump.way["suite"] in ("bullseye", "bookworm") or not level & 16
    return set() if known else vmcorefilter.free_pages(core), vmcorefilter.tails(core)


@each_way
@pytest.mark.parametrize("level", [1, 2, 4, 8, 16, 31])
def test_the_page_filter_makes_the_choice_that_makedumpfile_makes(dump, tmp_path, level):
    out = tmp_path / "filtered"
    readers.makedumpfile("-d", str(level), "-z", dump.full, out)
    ram, has = vmcorefilter.bitmaps(out)
    found, _, pages = vmcorefilter.Vmcore(dump.full).left_out(level)
    assert pages.unjudged == 0
    left = set().union(*unjudged(dump, level))
    assert found - left == (ram - has) - left


@each_way
def test_the_page_filter_leaves_out_as_free_what_the_free_lists_hold(dump):
    core = vmcorefilter.Vmcore(dump.full)
    found, counts, _ = core.left_out(16)
    assert found == vmcorefilter.free_pages(core)
    assert counts["free"] == len(found)


@each_way
@pytest.mark.parametrize("form", ["kdump", "elf"])
def test_drgn_names_release_panic_and_the_crashed_task_s_stack(dump, form):
    program = opened(getattr(dump, form), dump.way["suite"])
    release = program["init_uts_ns"].name.release.string_().decode()
    assert release == linux.release(dump.way["suite"])
    assert b"Kernel panic - not syncing: sysrq triggered crash" in get_dmesg(program)
    thread = program.crashed_thread()
    assert task_cpu(thread.object) == dump.way["cpu"]
    assert thread.object.comm.string_() in (b"sh", b"busybox")
    frames = [frame.name for frame in thread.stack_trace()]
    assert "sysrq_handle_crash" in frames
    assert "write_sysrq_trigger" in frames


@each_way
def test_drgn_walks_tasks_modules_and_slabs_of_the_kdump_file(dump):
    program = opened(dump.kdump, dump.way["suite"])
    assert {1, 2} <= {task.pid.value_() for task in for_each_task(program)}
    assert b"xen_blkfront" in {module.name.string_() for module in for_each_module(program)}
    cache = find_slab_cache(program, "task_struct")
    used = list(slab_cache_for_each_allocated_object(cache, "struct task_struct"))
    assert program["init_task"].address_of_().value_() not in {task.value_() for task in used}
    tasks = {task.value_() for task in for_each_task(program)}
    assert {task.value_() for task in used} >= tasks - {program["init_task"].address_of_().value_()}


@each_way
@pytest.mark.parametrize("form", ["kdump", "elf"])
def test_crash_tells_of_system_stack_log_tasks_and_slabs(dump, form):
    vmlinux = symbols.vmlinux(dump.way["suite"])
    if dump.way["suite"] == "trixie-backports":
        # 8.0.6 does not know the slabs of Linux 7.3: it does not open its whole memory either.
        with pytest.raises(LabError, match="kmem_cache_s_num"):
            readers.crash(vmlinux, dump.full, "sys")
        return
    commands = ("sys", "bt", "log", "ps", "kmem -i", "kmem -s")
    said = readers.crash(vmlinux, getattr(dump, form), *commands)
    assert f"RELEASE: {linux.release(dump.way['suite'])}" in said
    assert re.search(r"PANIC: .*sysrq triggered crash", said)
    assert "sysrq_handle_crash at" in said
    assert "sysrq: Trigger a crash" in said
    assert re.search(r"^ +2 +0 .* \[kthreadd\]", said, re.MULTILINE)
    assert re.search(r"TOTAL MEM +\d+", said)
    assert re.search(r" task_struct$", said, re.MULTILINE)


@pytest.fixture(scope="module")
def report(dump):
    """What `pvdump report` tells of a dump without debug symbols."""
    return gather(dump.kdump, [])


@pytest.fixture(scope="module")
def said(dump):
    """What crash says of it."""
    if dump.way["suite"] == "trixie-backports":
        pytest.skip("crash 8.0.6 does not open dumps of Linux 7.3")
    commands = ("sys", "sys -t", "log", "mod", "bt", "ps", "kmem -i", "kmem -V", "foreach bt")
    return readers.crash(symbols.vmlinux(dump.way["suite"]), dump.kdump, *commands)


def frames(stack):
    """A stack as crashtool has it."""
    assert stack.ends == ""
    return [(frame.name, frame.address) for frame in stack.frames]


@each_way
def test_a_report_of_either_format_needs_no_debug_symbols(dump, report):
    assert report.source == "the dump itself"
    # Linux 5.10 has no types of modules.
    lacks = ["no types of the modules' own"] if dump.way["suite"] == "bullseye" else []
    assert [line.partition(",")[0] for line in report.missing] == lacks
    assert report.kernel.release == linux.release(dump.way["suite"])
    assert "Kernel panic - not syncing: sysrq triggered crash" in report.crash.lines
    assert report.crash.cpu == dump.way["cpu"]
    assert int(report.crash.registers["ip"], 16) >> 32 == 0xFFFFFFFF
    assert "xen_blkfront" in [module.name for module in report.modules]
    other = gather(dump.elf, [])
    other.vmcore, other.size = report.vmcore, report.size
    assert other == report


@each_way
def test_a_report_has_the_system_that_crash_tells_of(report, said):
    kernel, theirs = report.kernel, crashtool.system(said)
    assert {
        "CPUS": str(kernel.cpus),
        "TASKS": str(len(report.tasks)),
        "NODENAME": kernel.hostname,
        "RELEASE": kernel.release,
        "VERSION": kernel.version,
    }.items() <= theirs.items()
    assert theirs["PANIC"].strip('"') in report.crash.lines
    # crash cuts off what the kernel itself rounds.
    load = [float(each) for each in theirs["LOAD AVERAGE"].split(", ")]
    assert kernel.load == pytest.approx(load, abs=0.011)
    date = datetime.strptime(theirs["DATE"], "%a %b %d %H:%M:%S UTC %Y").replace(tzinfo=UTC)
    # The kernel notes the time before it stops the clock.
    assert 0 <= date.timestamp() - kernel.crashed_at <= 1
    assert bool(kernel.taints) == bool(crashtool.tainted(said))


@each_way
def test_a_report_has_the_modules_that_crash_has(report, said):
    assert {module.name: module.size for module in report.modules} == crashtool.modules(said)


@each_way
def test_a_report_has_the_log_that_crash_has(report, said):
    # Of a record, crash leaves out who wrote it.
    ours = [
        re.fullmatch(r"\[ *([0-9.]+)\] (?:\[ *[TC][0-9]+\] )?(.*)", line)
        for line in report.log
        if line.startswith("[")
    ]
    ours = [(found[1], found[2]) for found in ours]
    assert len(ours) > 40
    assert ours == crashtool.log(said)[-len(ours) :]


@each_way
def test_a_report_has_the_tasks_that_crash_has(report, said):
    tasks = {
        task.address: (
            *(task.pid, task.ppid, task.cpu, task.state),
            *(task.virtual >> 10, task.resident >> 10),
            f"[{task.comm}]" if task.is_kernel else task.comm,
        )
        for task in report.tasks
    }
    assert tasks == crashtool.tasks(said)


@each_way
def test_a_report_has_the_crashed_task_s_stack_as_crash_has_it(report, said):
    stack = report.crash.thread.stack
    # crash does not show a function whose last instruction is the call, as panic's of vpanic.
    ours = [(each.name, each.address) for each in stack.frames if each.offset < each.size]
    theirs = crashtool.stacks(said)[report.crash.thread.task.address]
    assert stack.ends == ""
    assert [name for name, _ in theirs[:2]] == ["machine_kexec", "__crash_kexec"]
    assert ours[0][0] == "__crash_kexec"
    assert ours[1:] == theirs[2:]


@each_way
def test_a_report_has_the_crashed_task_s_stack_as_the_kernel_told_it(report):
    told = [re.search(r"\]  ([^ ?]+\+0x\w+/0x\w+)$", line) for line in report.log]
    told = [found[1] for found in told if found]
    ours = [
        f"{frame.name}+{frame.offset:#x}/{frame.size:#x}"
        for frame in report.crash.thread.stack.frames
    ]
    at = told.index(next(line for line in told if line.startswith("sysrq_handle_crash")))
    assert ours[-len(told[at:]) :] == told[at:]


@each_way
def test_stacks_of_sleeping_tasks_are_those_that_crash_has(dump, report, said):
    theirs = crashtool.stacks(said)
    running = {thread.task.address for thread in (report.crash.thread, *report.crash.others)}
    with CoreFile(dump.kdump) as file:
        core = Core(dump.kdump)
        tasks = Tasks(core, Stacks(core, file.registers()))
        sleeping = [
            (task.address, frames(tasks.thread(task, raw).stack))
            for task, raw in tasks.all()
            if task.address not in running
        ]
    assert len(sleeping) > 20
    assert dict(sleeping) == {address: theirs[address] for address, _ in sleeping}


@each_way
def test_a_report_has_the_memory_that_crash_counts(report, said):
    theirs = crashtool.memory(said)
    memory = report.memory
    named = {
        "TOTAL MEM": memory.total,
        "FREE": memory.free,
        "USED": memory.total - memory.free,
        "BUFFERS": memory.buffers,
        "CACHED": memory.cached,
        "SLAB": memory.slab,
        "TOTAL SWAP": memory.swap_total,
        "SWAP USED": memory.swap_used,
        "COMMIT LIMIT": memory.commit_limit,
    }
    assert {name: size // PAGE for name, size in named.items()} == {
        name: theirs[name] for name in named
    }
    assert sum(memory.classes.values()) == memory.total


@each_way
def test_a_report_has_the_classes_of_memory_as_the_kernel_counts_them(report, said):
    theirs = crashtool.counters(said)
    shared = theirs["NR_SHMEM"]
    named = {
        "free": theirs["NR_FREE_PAGES"],
        "programs": theirs["NR_ANON_MAPPED"],
        "files": theirs["NR_FILE_PAGES"] - shared,
        "shared, tmpfs": shared,
        "slab": crashtool.memory(said)["SLAB"],
        "page tables": theirs["NR_PAGETABLE"],
        "kernel stacks": theirs["NR_KERNEL_STACK_KB"] * 1024 // PAGE,
    }
    classes = {name: size // PAGE for name, size in report.memory.classes.items()}
    assert named.items() <= classes.items()


@each_way
def test_a_report_ends_with_the_log(dump, report, tmp_path):
    log = readers.dmesg(dump.full, tmp_path / "dmesg").splitlines()
    assert report.log == log[-len(report.log) :]
    assert len(report.log) > 40


@each_way
def test_debug_symbols_add_lines_of_source_to_the_same_stack(dump, report):
    other = gather(dump.kdump, [symbols.vmlinux(dump.way["suite"])])
    assert other.source == "debug symbols"
    stack = other.crash.thread.stack
    assert frames(stack) == frames(report.crash.thread.stack)
    assert stack.frames[1].source[-1].startswith("kernel/panic.c:")
    other.source, other.crash = report.source, report.crash
    assert other == report


@each_way
def test_variables_have_the_types_that_debug_symbols_give_them(dump):
    program = opened(dump.kdump, dump.way["suite"])
    compared = 0
    for name, told in VARIABLES.items():
        try:
            real = program[name].type_.type_name().replace("pg_data_t", "struct pglist_data")
        except LookupError:
            continue  # this kernel has no such variable
        real, told = (re.sub(r"\b(const|volatile) |\d+(?=\])", "", text) for text in (real, told))
        assert (name, real) == (name, told)
        compared += 1
    assert compared > 70


@each_way
def test_a_script_in_drgn_has_variables_and_types_of_kernel_and_modules(dump, tmp_path, capsys):
    script = tmp_path / "script.py"
    # Modules of Linux 5.10 have no types.
    of_module = dump.way["suite"] != "bullseye"
    kind, member = ("blkfront_info", "xbdev") if of_module else ("task_struct", "mm")
    script.write_text(
        "import sys\n"
        "from drgn.helpers.linux.sched import cpu_curr\n"
        "print(prog['init_task'].comm.string_().decode(), sys.argv[1])\n"
        f"print(prog.type('struct {kind}').member('{member}').type.type.tag)\n"
        "print(cpu_curr(prog, int(sys.argv[1])).comm.string_().decode())\n"
    )
    assert cli.main(["drgn", str(dump.kdump), str(script), str(dump.way["cpu"])]) == 0
    lines = capsys.readouterr().out.splitlines()
    pointed = "xenbus_device" if of_module else "mm_struct"
    assert lines[:2] == [f"swapper/0 {dump.way['cpu']}", pointed]
    assert lines[2] in ("sh", "busybox")


@each_way
def test_both_formats_hold_the_same_pages(dump):
    program = drgn.Program()
    program.set_core_dump(dump.kdump)
    with dump.full.open("rb") as stream:
        for pfn, at, size, skip in domainmemory.pieces(dump.full):
            if pfn in dump.has:
                stream.seek(at)
                page = program.read(pfn * PAGE + skip, size, physical=True)
                assert page == stream.read(size)


@each_way
@pytest.mark.parametrize("form", ["kdump", "elf"])
def test_pykdumpfile_reads_the_same_pages(dump, form):
    pages = {}
    with dump.full.open("rb") as stream:
        for pfn, at, size, _ in domainmemory.pieces(dump.full):
            if pfn in dump.has and size == PAGE:
                stream.seek(at)
                pages[pfn] = hashlib.sha256(stream.read(size)).hexdigest()
    assert len(pages) > 1000
    assert readers.kdumpfile(getattr(dump, form), pages)[1] == list(pages.values())


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
    more = {"memory": 256, "extra": {"maxmem": 384}, "more": "pvdump.level=0"}
    more["then"] = "echo 0 >/sys/devices/system/cpu/cpu1/online"  # a vCPU that is gone at the panic
    domain = crash(xen, guest, target, file_mode=True, backend="blkback", cpu=0, **more)
    holes = re.search(r"pvdump: (\d+) pages could not be read", domain.console())
    assert int(holes[1]) > 64 << 8
    assert read_superblock(target).state == superblock.COMPLETE


def test_a_disk_that_is_full_half_way_has_a_partial_dump_and_says_why(at_prompt, target, tmp_path):
    limit = 64 << 20
    domain = at_prompt(*ONE, "hvm")
    domain.xen.attach(target, full_at=limit // 512)
    more = "pvdump.level=0 pvdump.compress=none"
    crash_at_prompt(domain, target, file_mode=False, more=more)
    assert "dump failed: device/vbd/51728: write of sector" in domain.console()
    block = read_superblock(target)
    assert block.state == superblock.PARTIAL
    assert "failed: status -1 (ERROR)" in block.reason
    assert limit - (4 << 20) < block.data_offset + block.written <= limit
    done = collect(target, tmp_path / "elf")
    assert done.reason == block.reason
    assert block.written <= done.size <= limit
    # The kernel's own pages came first, and its log is among them.
    program = opened(tmp_path / "elf", domain.xen.suite)
    assert b"Kernel panic - not syncing: sysrq triggered crash" in get_dmesg(program)
    assert collect_log(target, tmp_path / "log", False) == []
    assert "Kernel panic - not syncing: sysrq triggered crash" in (tmp_path / "log").read_text()
