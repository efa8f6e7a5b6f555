"""The example scripts, each as `./build.py run` runs it, in an embedded domain."""

import re

import pytest
from conformance.deviations import OURS, expected
from conformance.suite.all import CASES, GUEST
from fixtures import testkernel
from fixtures.bootdisks import DEBIAN_13, MIB, ext, fat, gpt

from pvxen.machine import COST_HYPERCALL
from tools import partners, run
from tools.image import build
from tools.imageconfig import ROOT

EXAMPLES = ROOT / "examples"
LINUX, ESP = "0fc63daf-8483-4772-8e79-3d69d8477de4", "c12a7328-f81f-11d2-ba4b-00a0c93ec93b"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The contents of pvboot.elf and pvboot.bin."""
    built = build(tmp_path_factory.mktemp("image"), config=ROOT / "pvboot.yaml")
    return built.elf.read_bytes(), built.bin.read_bytes()


@pytest.fixture
def example(files, capsys):
    """Runs an example with the arguments of `build.py run`. Returns what it printed."""

    def of(name, *arguments):
        words = [str(EXAMPLES / f"{name}.py"), *map(str, arguments)]
        assert run.play(run.options(words), *files) == 0, capsys.readouterr()
        return said(capsys.readouterr().out)

    return of


def said(text):
    """What a script printed: the image's own lines begin with its name."""
    return [line for line in text.splitlines() if "pvdump: " not in line]


@pytest.fixture
def slow(tmp_path):
    """A scenario in which each request of a disk takes 100 us."""
    path = tmp_path / "slow.yaml"
    path.write_text("outcome: right\ndisk: {latency: 100000}\n")
    return "--scenario", path


def test_each_example_is_tested_and_told_of():
    names = {path.stem for path in EXAMPLES.glob("*.py")}
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert names <= tested
    assert len(names) == 10
    page = (ROOT / "docs/scripting.md").read_text()
    assert all(f"examples/{name}.py" in page for name in names)


def test_tree(example, tmp_path):
    disks = [tmp_path / name for name in ("one", "two")]
    for disk in disks:
        disk.write_bytes(bytes(MIB))
    lines = example("tree", "--disk", disks[0], "--disk", disks[1])
    assert lines[0] == "1 = ''  (n0 r1)"
    assert "  name = 'guest'  (n0 r1)" in lines
    assert "  data = ''  (n1)" in lines
    nodes = [line.split()[0] for line in lines if line.startswith(" " * 6) and line[6] != " "]
    assert nodes == ["51728", "51744"]
    depths = [len(line) - len(line.lstrip()) for line in lines]
    assert max(depths) == 8
    assert "        backend = '/local/domain/0/backend/pvdump_vbd/1/51744'  (n1 r0)" in lines


def test_watch(example):
    assert example("watch") == [
        "    0 ms  data/example is None",
        " 1000 ms  data/example is b'one'",
        " 1500 ms  data/example is b'two'",
        " 2000 ms  data/example is b'end'",
    ]


def test_speed(example, slow, tmp_path):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(16 * MIB))
    first, *lines = example("speed", *slow, "--disk", disk)
    assert first.startswith("<disk xvdb, 16 MiB, writable>: ")
    rows = [re.fullmatch(r" *(\d+) KiB, ([a-z ]+?) +(\d+)\.\d MiB/s", line) for line in lines]
    speeds = {(int(row[1]), row[2]): int(row[3]) for row in rows}
    assert len(speeds) == 6
    # 4 KiB in 100 us, and a little more for the rest.
    assert 30 < speeds[4, "one by one"] < 40
    assert speeds[64, "one by one"] > 10 * speeds[4, "one by one"]
    assert speeds[4, "at once"] > 20 * speeds[4, "one by one"]


def test_fuzz(example, tmp_path):
    disk = tmp_path / "disk"
    content = bytes(range(256)) * (4 * MIB // 256)
    disk.write_bytes(content)
    lines = example("fuzz", "--disk", disk)
    counts = dict(re.findall(r"status (-?\d): (\d+) answers", "\n".join(lines)))
    assert sorted(counts) == ["-1", "-2", "0"]
    assert sum(map(int, counts.values())) == 256
    assert lines[-2:] == ["the backend is connected", "then a read gives 4096 bytes"]
    assert disk.read_bytes() == content


def test_ring(example, slow):
    first, second, third = example("ring", *slow)
    assert first == "a ring of one page has 32 entries"
    assert second == "32 requests stand in it, 0 entries are free"
    micros, counts = re.fullmatch(
        r"answered after (\d+) us, at each look: ([\d ]+)", third
    ).groups()
    assert int(micros) >= 100
    assert sum(map(int, counts.split())) == 32


def test_hypercalls(example):
    lines = example("hypercalls")
    assert lines[0] == "Xen 4.17"
    costs = [int(line.split()[-2]) for line in lines if line.endswith(" ns")]
    assert costs == [COST_HYPERCALL] * 4
    assert lines[-2:] == ["the copy is right", "an event has come"]


def test_gpt(example, tmp_path):
    data = gpt(
        tmp_path,
        [
            (ESP, fat(tmp_path, {"loader": None}, "-n", "BOOT", size=8 * MIB)),
            (LINUX, ext(tmp_path, {"a": b"b"}, "-L", "root", "-O", DEBIAN_13, size=16 * MIB)),
        ],
    )
    disk, bare = tmp_path / "gpt", tmp_path / "bare"
    disk.write_bytes(data)
    bare.write_bytes(bytes(MIB))
    text = "\n".join(example("gpt", "--disk", disk, "--disk", bare))
    assert f"xvdb: {len(data) >> 20} MiB, gpt\n" in text
    assert re.search(rf"   1     8192 KiB at     1024 KiB  .*\n +type {ESP}, vfat 'BOOT'\n", text)
    assert re.search(rf"   2    16384 KiB at     9216 KiB  .*\n +type {LINUX}, ext4 'root'\n", text)
    assert text.endswith("\nxvdc: 1 MiB, no partition table")


def test_chainboot(example, tmp_path):
    tree = {"boot/vmlinuz": testkernel.bzimage(tmp_path), "boot/initrd.img": b"initrd" * 10000}
    disk = tmp_path / "guest"
    disk.write_bytes(gpt(tmp_path, [(LINUX, ext(tmp_path, tree, "-O", DEBIAN_13, size=16 * MIB))]))
    text = "\n".join(example("chainboot", "--disk", disk))
    line = "root=/dev/xvdb1 ro booted.by=script console=hvc0"
    assert re.search(rf"xvdb1:/boot/vmlinuz: \d+ KiB at 0x{testkernel.ADDRESS:x}, {line}\n", text)
    assert f"kernel: line {line}\n" in text
    assert f"kernel: size {60000:016x}\n" in text
    assert "\nkernel: done " in text


def test_partner(files, capsys):
    words = [str(EXAMPLES / "partner.py")] * 2
    assert partners.play(run.options(words), *files) == 0
    assert sorted(said(capsys.readouterr().out)) == [
        "one | domain 1 waits for domain 2",
        "one | domain 2 answers: two, domain 2",
        "two | domain 1 asks: who is there, domain 2?",
    ]


def test_conformance(example):
    suite = ROOT / "host-tests/conformance/suite"
    *others, last = example("conformance", "--with", suite)
    counts = map(int, re.findall(r"\d+", last))
    right, different, left_out = counts
    cases = [case for case in CASES if GUEST in case.expected]
    # The store of `build.py run` has no optional features; the suite's own tests offer them all.
    assert [line.split(":")[0] for line in others] == ["depth_limits_what_is_told"]
    assert different == 1
    staged = [case for case in cases if "stage" in case.function.__code__.co_names]
    assert left_out == len(staged)
    assert right + different + left_out == len(cases) == len(expected(OURS, GUEST))
