"""Scripts on a real Xen: the examples, what `pvdump script` makes, and a prompt that xl moves."""

import re

import pytest
from conformance.deviations import DEVIATIONS
from conformance.suite.all import CASES
from conformance.suite.all import GUEST as ROLE
from fixtures import testkernel
from fixtures.bootdisks import DEBIAN_13, MIB, ext, gpt
from fixtures.xens import ONE, XENS

from lab.domain import Domain
from lab.guest import Guest
from pvdump import cli
from tools import image

pytestmark = pytest.mark.xen

EXAMPLES = image.ROOT / "examples"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
VERSIONS = {"bookworm": "4.17", "trixie": "4.20"}
KERNELS = {"pvh": "pvboot-elf", "firmware": "pvboot-fw"}
CONTENT = bytes(range(256)) * (4 * MIB // 256)


@pytest.fixture(scope="module")
def pvboot():
    """The image, where the lab's guests look for it."""
    return image.build(image.ROOT / "out", config=image.ROOT / "pvboot.yaml")


@pytest.fixture
def start(pvboot, xen, guest):
    """Makes a guest of a script, paused; it stays after its end, and goes with the test."""
    domains = []

    def of(name, door, **fields):
        fields = {"kernel": KERNELS[door], "script": str(EXAMPLES / f"{name}.py"), **fields}
        made = guest(f"{door}.yaml", memory=64, on_poweroff="preserve", **fields)
        domains.append(xen.create(made, paused=True))
        return domains[-1]

    yield of
    for domain in domains:
        domain.destroy()


def printed(domain):
    """What a script has printed: the image's own lines begin with its name."""
    lines = domain.console().replace("\r", "").splitlines()
    return [line for line in lines if not line.startswith("pvdump: ")]


class Run:
    """An example that has run. lines: what it printed; disk: its disk's file; domain; xen."""

    def __init__(self, xen, start, name, door, disk, content, before="", **fields):
        disk.write_bytes(content)
        self.xen, self.disk = xen, disk
        disks = [{"vdev": "xvdb", "file": str(disk)}]
        self.domain = start(name, door, disks=disks, **fields)
        self.home = f"/local/domain/{self.domain.domid}"
        xen.sh(before.replace("HOME", self.home))
        xen.sh(f"xl unpause {self.domain.domid}")
        assert self.domain.wait_end() == "poweroff", self.domain.console()
        self.lines = printed(self.domain)


def tree(run):
    """dom0 sees the same nodes, but for those that the guest writes at its end."""
    seen = run.xen.sh(f"xenstore-ls {run.home}").replace('"', "'").splitlines()
    nodes = {line.strip() for line in seen}
    told = {line.partition("  (")[0].strip() for line in run.lines[1:]}
    assert {node.split()[0] for node in told - nodes} <= {
        *("feature-poweroff", "feature-reboot", "feature-suspend")
    }
    assert "data = ''" in told
    assert len(told) > 20


def watch(run):
    values = [line.partition(" is ")[2] for line in run.lines]
    assert values[0] == "b'begin'"
    assert values[-1] == "b'end'"
    assert set(values) <= {f"b'{word}'" for word in ("begin", "one", "two", "end")}


def speed(run):
    rows = [re.fullmatch(r" *(\d+) KiB, ([a-z ]+?) +(\d+)\.(\d) MiB/s", x) for x in run.lines[1:]]
    speeds = {(int(row[1]), row[2]): int(row[3] + row[4]) for row in rows}
    assert len(speeds) == 6
    assert speeds[256, "at once"] > speeds[4, "one by one"] > 0


def fuzz(run):
    counts = dict(re.findall(r"status (-?\d): (\d+) answers", "\n".join(run.lines)))
    assert sum(map(int, counts.values())) == 256
    assert "-1" in counts
    assert run.lines[-2:] == ["the backend is connected", "then a read gives 4096 bytes"]
    assert run.disk.read_bytes() == CONTENT


def ring(run):
    assert run.lines[:2] == [
        "a ring of one page has 32 entries",
        "32 requests stand in it, 0 entries are free",
    ]
    counts = run.lines[2].partition("at each look: ")[2]
    assert sum(map(int, counts.split())) == 32


def hypercalls(run):
    assert run.lines[0] == f"Xen {VERSIONS[run.xen.suite]}"
    costs = [int(line.split()[-2]) for line in run.lines if line.endswith(" ns")]
    assert len(costs) == 4
    assert min(costs) > 0
    assert run.lines[-2:] == ["the copy is right", "an event has come"]


def conformance(run):
    """A server deviates where its deviations are, as far as dom0 has staged nothing."""
    *others, last = run.lines
    server = f"{run.xen.xenstored} {VERSIONS[run.xen.suite]}"
    staged = {case.name for case in CASES if "stage" in case.function.__code__.co_names}
    wanted = {name for which, name in DEVIATIONS if which == server}
    cases = {case.name for case in CASES if ROLE in case.expected}
    assert {line.split(":")[0] for line in others} == (wanted & cases) - staged
    right, different, left_out = map(int, re.findall(r"\d+", last))
    assert left_out == len(staged & cases)
    assert right + different + left_out == len(cases)


MORE = {
    "watch": {"before": "xenstore-write HOME/data/example begin"},
    "conformance": {"imports": [str(image.ROOT / "host-tests/conformance/suite")]},
}
CHECKS = (tree, watch, speed, fuzz, ring, hypercalls, conformance)


@pytest.mark.matrix(
    xen=XENS,
    door=["firmware", "pvh"],
    check=CHECKS,
    apart=True,
    indirect=["xen"],
)
def test_an_example_shows_what_this_xen_does(xen, start, tmp_path, door, check):
    name = check.__name__
    check(Run(xen, start, name, door, tmp_path / "disk", CONTENT, **MORE.get(name, {})))


@pytest.mark.matrix(xen=ONE, door=["pvh", "firmware"], indirect=["xen"], more={"xen": XENS[1:]})
def test_a_disk_s_table_is_shown_and_its_kernel_entered(xen, start, tmp_path, door):
    files = {"boot/vmlinuz": testkernel.bzimage(tmp_path), "boot/initrd.img": b"initrd" * 10000}
    root = ext(tmp_path, files, "-L", "root", "-O", DEBIAN_13, size=16 * MIB)
    content = gpt(tmp_path, [(LINUX, root)])
    run = Run(xen, start, "gpt", door, tmp_path / "one.img", content)
    run.domain.destroy()
    text = "\n".join(run.lines)
    assert text.startswith(f"xvdb: {len(content) >> 20} MiB, gpt\n")
    assert re.search(rf"   1    16384 KiB at     1024 KiB  .*\n +type {LINUX}, ext4 'root'", text)
    run = Run(xen, start, "chainboot", door, tmp_path / "two.img", content)
    said = run.domain.debug()
    assert "kernel: line root=/dev/xvdb1 ro booted.by=script console=hvc0\n" in said
    assert f"kernel: size {60000:016x}\n" in said
    assert "kernel: done" in said


@pytest.mark.matrix(xen=ONE, door=["pvh", "firmware"], indirect=["xen"], more={"xen": XENS[1:]})
def test_partners_find_each_other(xen, start, door):
    one, two = start("partner", door), start("partner", door)
    xen.sh(f"xl unpause {one.domid}")
    xen.sh(f"xenstore-write /local/domain/{one.domid}/data/partner {two.domid}")
    one.wait_console(rf"domain {one.domid} waits for domain {two.domid}")
    xen.sh(f"xenstore-write /local/domain/{two.domid}/data/partner {one.domid}")
    xen.sh(f"xl unpause {two.domid}")
    for domain in (one, two):
        assert domain.wait_end() == "poweroff", domain.console()
    name = two.guest.name
    assert printed(one)[-1] == f"domain {two.domid} answers: {name}, domain {two.domid}"
    assert printed(two) == [f"domain {one.domid} asks: who is there, domain {two.domid}?"]


@pytest.mark.matrix(xen=ONE, door=["pvh", "firmware"], indirect=["xen"], more={"xen": XENS[1:]})
def test_xl_starts_what_the_command_makes(pvboot, xen, tmp_path, capsys, door):
    """The folder is made on the host: in dom0 it has another name, which xl.cfg must have."""
    script, disk = tmp_path / "hello.py", tmp_path / "disk"
    script.write_text("print(await store.read('name'), len(await disk.read(0, 8)), disk)\n")
    disk.write_bytes(bytes(MIB))
    folder, name = xen.job / f"made-{door}", f"hello-{door}"
    elf = pvboot.elf if door == "pvh" else pvboot.fw
    words = ["--name", name, "--image", str(elf), "--disk", str(disk)]
    words += ["--firmware"] if door == "firmware" else []
    assert cli.main(["script", str(script), "-o", str(folder), *words]) == 0
    assert capsys.readouterr().out.endswith(f"xl create -c {folder}/xl.cfg\n")
    config = (folder / "xl.cfg").read_text().replace(str(folder), f"/job/{folder.name}")
    config = config.replace(str(disk), xen.attach(disk))
    (folder / "xl.cfg").write_text(config)
    domid = xen.sh(f"xl create -p /job/{folder.name}/xl.cfg 2>&1 && xl domid {name} || exit 1")
    guest = Guest.parse({"name": name, "type": door, "kernel": KERNELS[door]})
    domain = Domain(xen, guest, int(domid.split()[-1]), {})
    xen.sh(f"xl unpause {domain.domid}")
    assert domain.wait_end() == "poweroff", domain.console()
    assert printed(domain) == [f"b'{name}' 8 <disk xvda, 1 MiB, writable>"]


def answer(domain, line, pattern):
    """Type a line at the prompt, and wait for the answer."""
    before = domain.console().count(">>> ")
    domain.type(line)
    what = f"the answer to {line}"
    domain.wait_until(lambda: domain.console().count(">>> ") > before, what)
    said = domain.console().rpartition(line)[2]
    assert re.search(pattern, said), said


@pytest.mark.matrix(xen=ONE, door=["pvh", "firmware"], indirect=["xen"], more={"xen": XENS[1:]})
def test_a_prompt_is_saved_restored_migrated_and_ended_by_xl(pvboot, xen, guest, tmp_path, door):
    disk = tmp_path / "disk"
    disk.write_bytes(CONTENT)
    line = "pvdump.run=shell"
    text = {"cmdline": line} if door == "pvh" else {"run": f"#pvdump\n{line}\n"}
    disks = [{"vdev": "xvdb", "file": str(disk)}]
    for command, reason in (("shutdown", "poweroff"), ("reboot", "reboot")):
        fields = {"kernel": KERNELS[door], "memory": 64, "disks": disks, **text}
        domain = xen.create(guest(f"{door}.yaml", **fields))
        domain.wait_console(r"help\(\) says what there is\.\r?\n>>> ")
        answer(domain, "x = 41; await disk.read(255, 2)", r"b'\\xff\\x00'")
        if command == "shutdown":
            xen.sh(f"xl save {domain.domid} /tmp/saved 2>&1 || exit 1")
            xen.sh("xl restore /tmp/saved 2>&1 && rm /tmp/saved || exit 1")
            domain.find_again()
        else:
            domain.migrate()
        answer(domain, "x + 1, await disk.read(511, 2)", r"\(42, b'\\xff\\x00'\)")
        answer(domain, 'store.read("domid")', rf"b'{domain.domid}'")
        xen.sh(f"xl {command} {domain.domid} 2>&1 || exit 1")
        assert domain.wait_end() == reason
