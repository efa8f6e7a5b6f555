"""Each state that doctor knows is found where it is laid out, with the line that mends it."""

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.guestroot import XVDA, GuestRoot

from pvdump import cli
from pvdump.guest import checks, doctor, targetlook, xen
from pvdump.guest.states import ADVICE, DOM0, NO, OK, STATES, Finding
from pvfw import superblock

DOCS = Path(__file__).resolve().parents[3] / "docs/doctor.md"
LOCKED = "none [integrity] confidentiality"


def pvh(root: GuestRoot) -> None:
    root.write("sys/hypervisor/guest_type", "PVH")


def ec2(root: GuestRoot) -> None:
    root.write("sys/hypervisor/uuid", "ec2f1a2b-0000-0000-0000-000000000000")
    root.write("sys/class/dmi/id/bios_version", "4.11.amazon")


def xapi(root: GuestRoot) -> None:
    root.store["unique-domain-id"] = "d5c91743-ae4b-cfe6-1976-04dde8c18fce"


def no_disks(root: GuestRoot) -> None:
    root.remove("sys/bus/xen/devices")


def xl(extra: str, minor: str = "17") -> Callable[[GuestRoot], None]:
    def lay_out(root: GuestRoot) -> None:
        root.write("sys/hypervisor/version/minor", minor)
        root.write("sys/hypervisor/version/extra", extra)

    return lay_out


def no_features(root: GuestRoot) -> None:
    root.store[f"{XVDA}/feature-flush-cache"] = root.store[f"{XVDA}/feature-barrier"] = "0"


def large_sectors(root: GuestRoot) -> None:
    root.store[f"{XVDA}/backend"] = "/local/domain/0/backend/qdisk/5/51712"
    root.store[f"{XVDA}/sector-size"] = "4096"


def locked_without_file_load(root: GuestRoot) -> None:
    root.sign()
    text(f"boot/config-{root.facts().release}", "CONFIG_KEXEC=y")(root)
    text("sys/kernel/security/lockdown", LOCKED)(root)


def text(name: str, content: str) -> Callable[[GuestRoot], None]:
    return lambda root: root.write(name, content)


def gone(name: str) -> Callable[[GuestRoot], None]:
    return lambda root: root.remove(name)


def unreserved(root: GuestRoot, cmdline: str = "ro", words: str = "") -> None:
    root.write("sys/kernel/kexec_crash_size", "0")
    root.write("sys/kernel/kexec_crash_loaded", "0")
    root.write("proc/cmdline", cmdline)
    root.grub_cfg(words)


def no_loader(root: GuestRoot) -> None:
    unreserved(root)
    root.remove("usr/sbin/update-grub")


def overridden(root: GuestRoot) -> None:
    root.kdump_tools()
    root.remove("etc/default/grub.d/zz-pvdump.cfg")
    root.write("etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="quiet crashkernel=4M"\n')


def disabled_kdump_tools(root: GuestRoot) -> None:
    root.kdump_tools()
    root.remove("etc/systemd/system/multi-user.target.wants/kdump-tools.service")


def spare(root: GuestRoot) -> None:
    root.write("etc/pvdump.yaml", "targets: [xvdb, xvdc]\n")


def full(root: GuestRoot) -> None:
    """More pages that are kept than the target has room for."""
    with (root.path / "proc/kcore").open("r+b") as stream:
        stream.seek(0x1000 + (1 << 20))
        stream.write(os.urandom(7 << 20))
    root.target("xvdb", size=3 << 20)
    root.arm()


def swap_target(root: GuestRoot) -> None:
    """Swap as the target, armed, without the order of units that setup makes."""
    root.looks = [targetlook.Look("file:/dev/xvda3", "", 1 << 30, False, True)]


def unloaded(root: GuestRoot) -> None:
    root.write("sys/kernel/kexec_crash_loaded", "0")


# For each state how it is laid out, and a part of the line that mends it.
TABLE: dict[str, tuple[Callable[[GuestRoot], object], str]] = {
    "platform": (lambda root: None, ""),
    "not-xen": (gone("sys/hypervisor"), "apt install kdump-tools"),
    "dom0": (text("proc/xen/capabilities", "control_d\n"), "apt install kdump-tools"),
    "pv": (text("sys/hypervisor/guest_type", "PV"), 'type = "hvm"'),
    "pvh": (pvh, 'type = "hvm"'),
    "xl-broken": (xl(".0"), "4.17.1 or newer"),
    "ec2": (ec2, "aws ec2 modify-instance-attribute"),
    "xapi-once": (xapi, "xe vm-start uuid=6a1d52c1-0c93-4b4c-a7f9-4e6f4f1b1b10"),
    "dom0-actions": (lambda root: None, 'on_watchdog = "restart"'),
    "disks": (lambda root: None, ""),
    "no-pv-disk": (no_disks, "vdev=xvda"),
    "large-sectors": (large_sectors, "backendtype=phy,vdev=xvda"),
    "no-flush": (no_features, "backendtype=phy,vdev=xvda"),
    "kernel": (lambda root: None, ""),
    "no-kexec": (gone("sys/kernel/kexec_crash_loaded"), "apt install linux-image-amd64"),
    "no-kexec-tools": (gone("usr/sbin/kexec"), "apt install kexec-tools"),
    "kexec-disabled": (
        lambda root: (unloaded(root), text("proc/sys/kernel/kexec_load_disabled", "1")(root)),
        "sed -i '/kexec_load_disabled/d'",
    ),
    "kexec-frozen": (text("proc/sys/kernel/kexec_load_disabled", "1"), "kexec_load_disabled"),
    "no-kexec-file": (locked_without_file_load, "apt install linux-image-amd64"),
    "unsigned": (text("sys/kernel/security/lockdown", LOCKED), "pvdump sign --key KEY.key"),
    "no-image": (gone("pvdump.bin"), "apt reinstall pvdump"),
    "no-btf": (gone("sys/kernel/btf"), "apt install linux-image-amd64"),
    "reserved": (lambda root: None, ""),
    "loader": (lambda root: None, ""),
    "not-reserved": (unreserved, "pvdump setup && reboot"),
    "reboot": (lambda root: unreserved(root, words=" crashkernel=4M"), "reboot"),
    "no-loader": (no_loader, 'extra = "... crashkernel=4M"'),
    "reservation-failed": (
        lambda root: unreserved(root, "ro crashkernel=4G-:128M"),
        "pvdump setup && reboot",
    ),
    "too-small": (text("sys/kernel/kexec_crash_size", f"{2 << 20}"), "pvdump setup && reboot"),
    "larger": (text("sys/kernel/kexec_crash_size", f"{128 << 20}"), "pvdump setup && reboot"),
    "overridden": (overridden, "pvdump setup && reboot"),
    "rival": (GuestRoot.kdump_tools, "pvdump setup"),
    "rival-rule": (disabled_kdump_tools, "ln -s /dev/null /etc/udev/rules.d/50-kdump-tools.rules"),
    "armed": (lambda root: None, ""),
    "not-armed": (unloaded, "pvdump arm"),
    "other-image": (gone("run/pvdump/armed.json"), "pvdump arm"),
    "unfit": (text("sys/devices/system/cpu/present", "0-3\n"), "pvdump arm"),
    "not-enabled": (
        gone("etc/systemd/system/multi-user.target.wants/pvdump.service"),
        "systemctl enable pvdump.service",
    ),
    "not-waiting": (
        text("etc/pvdump.yaml", "targets: [xvdb]\ndirectory: /srv/dumps\n"),
        "pvdump setup",
    ),
    "target": (lambda root: None, ""),
    "no-target": (text("etc/pvdump.yaml", "targets: []\n"), "pvdump setup"),
    "settings": (text("etc/pvdump.yaml", "levle: 31\n"), "${EDITOR:-vi} /etc/pvdump.yaml"),
    "target-holds-dump": (
        lambda root: root.target("xvdb", state=superblock.COMPLETE),
        "pvdump collect",
    ),
    "target-refused": (gone("dev/xvdb"), "pvdump setup"),
    "spare-refused": (spare, "${EDITOR:-vi} /etc/pvdump.yaml"),
    "swap-first": (swap_target, "pvdump setup"),
    "target-small": (full, "pvdump remove && pvdump setup"),
    "panics": (lambda root: None, ""),
    "no-oops-panic": (text("proc/sys/kernel/panic_on_oops", "0"), "kernel.panic_on_oops=1"),
    "no-nmi-panic": (text("proc/sys/kernel/unknown_nmi_panic", "0"), "kernel.unknown_nmi_panic=1"),
    "no-hung-panic": (text("proc/sys/kernel/hung_task_panic", "0"), "kernel.hung_task_panic=1"),
    "no-lockup-panic": (text("proc/sys/kernel/softlockup_panic", "0"), "kernel.softlockup_panic=1"),
    "no-sysrq": (text("proc/sys/kernel/sysrq", "438"), "kernel.sysrq=446"),
}


def test_every_state_is_in_the_table() -> None:
    assert set(TABLE) == set(STATES)


@pytest.mark.parametrize("name", TABLE)
def test_state_is_found_with_the_line_that_mends_it(guest: GuestRoot, name: str) -> None:
    lay_out, mend = TABLE[name]
    lay_out(guest)
    found = guest.found()
    assert name in found
    finding = found[name]
    assert isinstance(finding, Finding)
    assert mend in finding.mend
    assert bool(finding.mend) == bool(finding.why) == (finding.verdict != OK)


@pytest.mark.parametrize("name", [name for name in TABLE if STATES[name].verdict != OK])
def test_state_is_not_found_where_all_is_well(guest: GuestRoot, name: str) -> None:
    # What dom0 does can never be seen.
    assert (name in guest.found()) == (name == "dom0-actions")


def rows() -> list[str]:
    """The table of docs/doctor.md: one row a state."""
    lines = []
    for name, state in STATES.items():
        what, why, mend = (
            re.sub(r"\{(\w+)\}", lambda found: found[1].upper(), text.replace("${{", "${{ "))
            .replace("${{ EDITOR:-vi}}", "${EDITOR:-vi}")
            .replace("|", "\\|")
            for text in (state.what, state.why, state.mend)
        )
        who = "dom0's owner: " if state.owner else ""
        mended = f"{who}`{mend}`" if mend else ""
        why = f": {why}" if why else ""
        lines.append(f"| {name} | {state.verdict} | {what}{why} | {mended} |")
    return lines


def test_every_state_is_documented_with_the_line_that_mends_it() -> None:
    text = DOCS.read_text(encoding="utf-8").splitlines()
    assert [
        line for line in text if re.match(r"\| [a-z][a-z0-9-]+ \| (ok|advice|dom0|no) ", line)
    ] == rows()


@pytest.mark.parametrize(
    ("record", "why"),
    [("{", "is damaged: rm "), ("[]", "is damaged: rm "), ('{"time": 1}', "another version of pv")],
)
def test_a_record_that_cannot_be_used_is_a_finding(guest: GuestRoot, record: str, why: str) -> None:
    guest.write("run/pvdump/armed.json", record)
    finding = guest.found()["unfit"]
    assert isinstance(finding, Finding)
    assert why in finding.what
    assert finding.mend == "pvdump arm"


def exit_code(guest: GuestRoot) -> int:
    return doctor.EXITS[checks.verdict(checks.examine(guest.facts()))]


@pytest.mark.parametrize(
    ("names", "code"),
    [
        ([], 0),
        (["no-oops-panic", "no-btf"], 0),
        (["xl-broken"], 2),
        (["pvh"], 2),
        (["ec2"], 2),
        (["not-armed"], 1),
        (["pvh", "not-armed"], 1),
        (["not-xen"], 1),
    ],
)
def test_exit_code_tells_what_a_panic_would_do(
    guest: GuestRoot, names: list[str], code: int
) -> None:
    for name in names:
        TABLE[name][0](guest)
    assert exit_code(guest) == code


@pytest.mark.parametrize(
    ("version", "fixed"),
    [
        (("4.12", ".4"), "4.15"),
        (("4.13", ".2"), "4.13.3"),
        (("4.14", ".1"), "4.14.2"),
        (("4.16", ".0"), "4.16.4"),
        (("4.16", ".3-pre"), "4.16.4"),
        (("4.17", ".0"), "4.17.1"),
        (("4.17", "-rc3"), "4.17.1"),
    ],
)
def test_xl_that_fails_at_a_soft_reset_is_known_by_its_version(
    guest: GuestRoot, version: tuple[str, str], fixed: str
) -> None:
    xl(version[1], version[0].partition(".")[2])(guest)
    finding = guest.found()["xl-broken"]
    assert isinstance(finding, Finding)
    assert f"Xen {fixed} or newer" in finding.mend


@pytest.mark.parametrize("version", ["4.13.3", "4.14.2", "4.15.0", "4.16.4", "4.17.1", "4.20.0"])
def test_xl_that_works_is_not_complained_of(guest: GuestRoot, version: str) -> None:
    _, minor, patch = version.split(".")
    xl(f".{patch}", minor)(guest)
    assert exit_code(guest) == 0


def test_disks_are_told_with_what_their_backends_offer(guest: GuestRoot) -> None:
    finding = guest.found()["disks"]
    assert isinstance(finding, Finding)
    assert "xvda (vbd: flush-cache, barrier, persistent, max-indirect-segments 256" in finding.what


def test_pvh_guest_of_xapi_can_dump(guest: GuestRoot) -> None:
    pvh(guest)
    xapi(guest)
    assert exit_code(guest) == 0


def test_pvh_guest_of_qubes_gets_the_line_of_qubes(guest: GuestRoot) -> None:
    pvh(guest)
    guest.write("usr/share/qubes/marker-vm", "")
    finding = guest.found()["pvh"]
    assert isinstance(finding, Finding)
    assert finding.mend.startswith("qvm-prefs VMNAME virt_mode hvm")


def test_signed_image_is_fit_for_lockdown(guest: GuestRoot) -> None:
    guest.sign()
    guest.write("sys/kernel/security/lockdown", LOCKED)
    assert "unsigned" not in guest.found()


def test_large_guest_without_large_pages_needs_more(guest: GuestRoot) -> None:
    guest.write("proc/meminfo", f"MemTotal: {1 << 30} kB\n")  # 1 TiB
    assert guest.facts().need() == 4 << 20
    guest.write("proc/cpuinfo", "flags : fpu lm\n")
    assert guest.facts().need() == 7 << 20  # 694 GiB more than 330, 4 KiB each
    assert "too-small" in guest.found()


def test_reboot_is_asked_for_only_while_the_kernel_runs_without_the_memory(
    guest: GuestRoot,
) -> None:
    unreserved(guest, words=" crashkernel=4M")
    assert {"reboot"} == {"reboot", "not-reserved", "no-loader"} & set(guest.found())


def run_line(guest: GuestRoot, line: str) -> None:
    """Run a line that mends, below the folder that stands for "/"."""
    for folder in ("/etc", "/usr", "/run"):
        line = line.replace(f" {folder}/", f" {guest.path}{folder}/")
    tools = guest.path / "tools"
    tools.mkdir()
    for name in ("reboot", "sysctl", "udevadm"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    for folder in ("sysctl.d", "udev/rules.d"):
        (guest.path / "etc" / folder).mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-c", line], check=True, env=environment)


def test_line_against_the_rule_of_kdump_tools_puts_it_out_of_force(guest: GuestRoot) -> None:
    disabled_kdump_tools(guest)
    finding = guest.found()["rival-rule"]
    assert isinstance(finding, Finding)
    run_line(guest, finding.mend)
    assert "rival-rule" not in guest.found()


def test_line_against_kexec_load_disabled_takes_it_out_of_the_settings(guest: GuestRoot) -> None:
    TABLE["kexec-frozen"][0](guest)
    for name in ("sysctl.conf", "sysctl.d/99-hard.conf"):
        guest.write(f"etc/{name}", "kernel.kexec_load_disabled = 1\nvm.swappiness=10\n")
    finding = guest.found()["kexec-frozen"]
    assert isinstance(finding, Finding)
    run_line(guest, finding.mend)
    for name in ("sysctl.conf", "sysctl.d/99-hard.conf"):
        assert (guest.path / "etc" / name).read_text() == "vm.swappiness=10\n"


@pytest.mark.parametrize("name", ["no-nmi-panic", "no-hung-panic", "no-lockup-panic", "no-sysrq"])
def test_line_for_a_panic_adds_to_what_is_there(guest: GuestRoot, name: str) -> None:
    TABLE[name][0](guest)
    guest.write("etc/sysctl.d/61-local.conf", "vm.swappiness=10\n")
    finding = guest.found()[name]
    assert isinstance(finding, Finding)
    run_line(guest, finding.mend)
    first, second = (guest.path / "etc/sysctl.d/61-local.conf").read_text().splitlines()
    assert first == "vm.swappiness=10"
    assert second.startswith("kernel.")


@pytest.fixture
def command(guest: GuestRoot, monkeypatch: pytest.MonkeyPatch) -> GuestRoot:
    """The guest, as the one that the command line looks at."""
    monkeypatch.setattr(doctor, "ROOT", guest.path)
    monkeypatch.setattr(xen, "read_store", lambda path: guest.store)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return guest


def test_person_reads_what_why_and_the_line_that_mends(
    command: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    command.write("proc/sys/kernel/panic_on_oops", "0")
    unloaded(command)
    assert cli.main(["doctor"]) == 1
    lines = capsys.readouterr().out.splitlines()
    place = lines.index("NO      no crash kernel is loaded")
    assert lines[place + 1].strip().startswith("after a panic the guest")
    assert lines[place + 2].strip() == "mend: pvdump arm"
    assert lines[-1] == "A panic now would not be dumped."
    assert lines.index("advice  kernel.panic_on_oops is 0") < place


def test_owner_of_dom0_is_asked_for_what_is_theirs(
    command: GuestRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    pvh(command)
    assert cli.main(["doctor"]) == 2
    assert 'ask dom0\'s owner for: type = "hvm"' in capsys.readouterr().out


def test_json_has_every_finding(command: GuestRoot, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == OK
    names = [finding["name"] for finding in found["findings"]]
    assert names == list(command.found())
    assert set(found["findings"][0]) == set(Finding._fields)


def test_only_root_is_let_in(
    command: GuestRoot, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.main(["doctor"]) == 1
    assert capsys.readouterr().err == "pvdump doctor: only root may do this: sudo pvdump doctor\n"


def test_verdicts_are_those_of_the_table() -> None:
    assert {state.verdict for state in STATES.values()} == {OK, ADVICE, DOM0, NO}
