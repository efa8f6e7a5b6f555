"""The states that `pvdump doctor` knows: what is seen, why it matters, the line that mends it.

checks.py finds them, doctor.py prints them, docs/doctor.md lists them. The rule: a line that mends
can be pasted into a shell of the guest, or, where the state is the owner's of dom0, sent to them.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from ..streams import pasted

OK, ADVICE, DOM0, NO = "ok", "advice", "dom0", "no"


class State(NamedTuple):
    """A state of a guest.

    Attributes:
        verdict: OK; ADVICE, a panic would be dumped all the same; DOM0, it depends on dom0; NO, it
            would not be dumped.
        what, why, mend: texts with {names} of what was found.
        owner: whether what mends it is the business of dom0's owner.
    """

    verdict: str
    what: str
    why: str = ""
    mend: str = ""
    owner: bool = False


class Finding(NamedTuple):
    """A state that was found, with its texts filled in.

    Attributes:
        name: of the state, a key of STATES.
        verdict, what, why, mend, owner: as those of State.
    """

    name: str
    verdict: str
    what: str
    why: str
    mend: str
    owner: bool


def found(name: str, /, **values: object) -> Finding:
    """Make a finding of a state.

    Args:
        name: a key of STATES.
        values: of the names in its texts.
    """
    state = STATES[name]
    what, why = (text.format(**values) for text in (state.what, state.why))
    words = {key: pasted(each) if isinstance(each, Path) else each for key, each in values.items()}
    mend = state.mend.format(**words)
    return Finding(name, state.verdict, what, why, mend, state.owner)


STATES = {
    # The platform.
    "platform": State(OK, "{kind} guest of Xen {version}, toolstack: {toolstack}"),
    "not-xen": State(
        NO,
        "this machine is no Xen guest",
        "pvdump writes dumps to Xen's PV disks",
        "apt install kdump-tools",
    ),
    "dom0": State(
        NO,
        "this is dom0, not a guest",
        "only in a guest does a panic start the crash kernel",
        "apt install kdump-tools",
    ),
    "pv": State(
        NO,
        "this is a PV guest",
        "Linux has no kexec in PV guests",
        'type = "hvm"    # in the guest\'s xl.cfg, in place of type = "pv"',
        owner=True,
    ),
    "pvh": State(
        DOM0,
        "this is a PVH guest, and its toolstack is {toolstack}",
        "libxl refuses the soft reset that starts the crash kernel, and destroys the domain",
        "{line}",
        owner=True,
    ),
    "xl-broken": State(
        DOM0,
        "Xen {version}: the xl of this version fails at a soft reset ({fault})",
        "the domain would be destroyed after the panic instead of starting the crash kernel",
        "apt install xen-system-amd64    # in dom0: Xen {fixed} or newer",
        owner=True,
    ),
    "ec2": State(
        DOM0,
        "this is a Xen instance of EC2",
        "a soft reset is not known to work there",
        "aws ec2 modify-instance-attribute --instance-id ID --instance-type t3.medium    "
        "# a type that is not on Xen, for Linux' own kdump",
        owner=True,
    ),
    "xapi-once": State(
        ADVICE,
        "this toolstack (XCP-ng, XenServer) soft resets a domain once",
        "a second panic is dumped only after the VM was shut down and started again in between",
        "xe vm-shutdown uuid={uuid} && xe vm-start uuid={uuid}    # after each dump",
        owner=True,
    ),
    "dom0-actions": State(
        ADVICE,
        "what dom0 does at a panic cannot be seen from here",
        'another on_soft_reset than xl\'s default loses the dump; on_watchdog is "destroy" by '
        "default, should the crash kernel hang",
        'on_soft_reset = "soft-reset"; on_watchdog = "restart"; on_crash = "restart"'
        "    # in the guest's xl.cfg",
        owner=True,
    ),
    # Disks.
    "disks": State(OK, "PV disks: {disks}"),
    "no-pv-disk": State(
        NO,
        "no disk of this guest is driven by xen-blkfront",
        "the crash kernel writes to PV disks only",
        'disk = [ "...,vdev=xvda,..." ]    # in the guest\'s xl.cfg; and no xen_emul_unplug= on '
        "the guest's kernel command line",
        owner=True,
    ),
    "large-sectors": State(
        ADVICE,
        "disk {disk} has sectors of {size} bytes, by the backend {backend}",
        "the crash kernel refuses such a disk where its backend counts sectors in that unit",
        "\"...,backendtype=phy,vdev={disk}\"    # in the guest's xl.cfg: dom0's block driver",
        owner=True,
    ),
    "no-flush": State(
        ADVICE,
        "the backend of disk {disk} offers neither flush nor barrier",
        "nothing tells whether a dump is on stable storage when the host loses power",
        "\"...,backendtype=phy,vdev={disk}\"    # in the guest's xl.cfg: dom0's block driver",
        owner=True,
    ),
    # The kernel.
    "kernel": State(OK, "kernel {release}: kexec and BTF"),
    "no-kexec": State(
        NO,
        "kernel {release} has no kexec (CONFIG_KEXEC, CONFIG_CRASH_DUMP)",
        "it cannot load a crash kernel",
        "apt install linux-image-amd64 && reboot",
    ),
    "no-kexec-tools": State(
        NO,
        "there is no program kexec",
        "it loads the crash kernel",
        "apt install kexec-tools || dnf install kexec-tools",
    ),
    "kexec-disabled": State(
        NO,
        "kernel.kexec_load_disabled is 1",
        "until the next boot no crash kernel can be loaded",
        "sed -i '/kexec_load_disabled/d' /etc/sysctl.conf /etc/sysctl.d/*.conf; reboot",
    ),
    "kexec-frozen": State(
        ADVICE,
        "kernel.kexec_load_disabled is 1, and the crash kernel is loaded",
        "after a change of memory or CPUs it cannot be loaded again",
        "sed -i '/kexec_load_disabled/d' /etc/sysctl.conf /etc/sysctl.d/*.conf; reboot",
    ),
    "no-kexec-file": State(
        NO,
        "lockdown is {lockdown}, and kernel {release} has no CONFIG_KEXEC_FILE",
        "under lockdown a crash kernel is loaded by kexec_file_load alone",
        "apt install linux-image-amd64 && reboot",
    ),
    "unsigned": State(
        NO,
        "lockdown is {lockdown}, and the image {image} is not signed",
        "under lockdown, as with Secure Boot, Linux loads only a signed crash kernel",
        "pvdump sign --key KEY.key --cert KEY.pem {image}",
    ),
    "no-image": State(
        NO,
        "there is no image {image}",
        "it is the crash kernel",
        "apt reinstall pvdump || dnf reinstall pvdump",
    ),
    "no-btf": State(
        ADVICE,
        "kernel {release} has no BTF (CONFIG_DEBUG_INFO_BTF)",
        "what the page filter does not know of the kernel it keeps, so the dump is larger; a "
        "report without debug symbols says less",
        "apt install linux-image-amd64 && reboot",
    ),
    # The reservation.
    "reserved": State(OK, "{size} MiB are reserved for the crash kernel (crashkernel=)"),
    "loader": State(OK, "boot loader: {loader}; crashkernel= of the next boot: {next}"),
    "not-reserved": State(
        NO,
        "no memory is reserved for the crash kernel",
        "without crashkernel={need}M on the kernel's command line no image can be loaded",
        "pvdump setup && reboot",
    ),
    "reboot": State(
        NO,
        "crashkernel={next} is in the configuration of {loader}, and the kernel runs without it",
        "memory is reserved when the kernel starts",
        "reboot",
    ),
    "no-loader": State(
        NO,
        "no memory is reserved for the crash kernel, and this guest has no boot loader that is "
        "known here",
        "where dom0 has the kernel (kernel= in xl.cfg), its command line is there too",
        'extra = "... crashkernel={need}M"    # in the guest\'s xl.cfg',
        owner=True,
    ),
    "reservation-failed": State(
        NO,
        "crashkernel={value} is on the kernel's command line, and nothing is reserved",
        "the value reserves nothing in a guest of {memory} MiB, or there is no room for it",
        "pvdump setup && reboot",
    ),
    "too-small": State(
        NO,
        "{size} MiB are reserved for the crash kernel, and {need} MiB are needed",
        "the image, what kexec adds, and Linux' map of the memory must fit: docs/memory.md",
        "pvdump setup && reboot",
    ),
    "larger": State(
        ADVICE,
        "{size} MiB are reserved for the crash kernel, and {need} MiB are enough",
        "the rest is lost to the guest",
        "pvdump setup && reboot",
    ),
    "overridden": State(
        ADVICE,
        "crashkernel={ours} of {file} does not count: {other} comes later",
        "of several crashkernel= on a command line the last one counts",
        "pvdump setup && reboot",
    ),
    # Linux' own kdump.
    "rival": State(
        NO,
        "{rival} is enabled",
        "it loads its own crash kernel at boot; there is one at a time",
        "pvdump setup",
    ),
    "rival-rule": State(
        ADVICE,
        "{rule}, of {rival}, is in force, though {rival} is not enabled",
        "after a change of memory or CPUs it unloads the crash kernel, whosever it is",
        "ln -s /dev/null /etc/udev/rules.d/{name} && udevadm control --reload",
    ),
    # What is armed.
    "armed": State(OK, "the crash kernel is loaded"),
    "not-armed": State(
        NO,
        "no crash kernel is loaded",
        "after a panic the guest would reboot or hang",
        "pvdump arm",
    ),
    "other-image": State(
        NO,
        "a crash kernel is loaded, and pvdump has not loaded it",
        "after a panic it would start in the place of pvdump",
        "pvdump arm",
    ),
    "unfit": State(
        NO,
        "what is loaded would not dump: {why}",
        "the crash kernel has what was true when it was loaded: memory, CPUs, place of the target",
        "pvdump arm",
    ),
    "not-enabled": State(
        ADVICE,
        "not enabled: {units}",
        "after the next boot the crash kernel would not be loaded, or a dump not collected",
        "systemctl enable {units}",
    ),
    "not-waiting": State(
        ADVICE,
        "pvdump-collect.service does not wait for all folders and devices that the settings name",
        "after a panic the dump may be collected before they are there: too early, or into a "
        "folder over which a file system is mounted then",
        "pvdump setup",
    ),
    # Targets.
    "target": State(OK, "target {target} is ready, with room for {room} MiB"),
    "no-target": State(
        NO,
        "no target is configured in {file}",
        "a panic would leave its log on console and in xenstore, and no dump",
        "pvdump setup",
    ),
    "settings": State(
        NO,
        "the settings cannot be read: {why}",
        "nothing can be armed with them",
        "${{EDITOR:-vi}} {file}",
    ),
    "target-holds-dump": State(
        NO,
        "target {target} is refused: {why}",
        "a target that holds a dump is not written again",
        "pvdump collect",
    ),
    "target-refused": State(
        NO,
        "target {target} is refused: {why}",
        "the crash kernel would not write to it",
        "pvdump setup --target file",
    ),
    "spare-refused": State(
        ADVICE,
        "target {target} is refused: {why}",
        "it is no help if the others fail",
        "${{EDITOR:-vi}} {file}",
    ),
    "swap-first": State(
        NO,
        "target {target} is swap, and nothing makes swap wait for the dump to be collected",
        "after the panic the kernel would swap over the dump",
        "pvdump setup",
    ),
    "target-small": State(
        ADVICE,
        "target {target} has room for {room} MiB, and a dump would take about {estimate} MiB",
        "a dump that does not fit ends early: log and stacks are there, pages are missing",
        "pvdump remove && pvdump setup    # makes it anew, as large as is needed",
    ),
    # What panics, and what does not.
    "panics": State(OK, "oops, hang and NMI end in a panic, and sysrq may crash this guest"),
    "no-oops-panic": State(
        ADVICE,
        "kernel.panic_on_oops is 0",
        "after an oops the kernel goes on, damaged as it may be, and nothing is dumped",
        "echo kernel.panic_on_oops=1 > /etc/sysctl.d/60-pvdump.conf && sysctl --system",
    ),
    "no-nmi-panic": State(
        ADVICE,
        "kernel.unknown_nmi_panic is 0",
        "an NMI from dom0 (xl trigger DOMAIN nmi) does not make a guest dump that hangs",
        "echo kernel.unknown_nmi_panic=1 >> /etc/sysctl.d/61-local.conf && sysctl --system",
    ),
    "no-hung-panic": State(
        ADVICE,
        "kernel.hung_task_panic is 0",
        "a task that is blocked for two minutes is told in the log, and not dumped",
        "echo kernel.hung_task_panic=1 >> /etc/sysctl.d/61-local.conf && sysctl --system",
    ),
    "no-lockup-panic": State(
        ADVICE,
        "kernel.softlockup_panic is 0",
        "a CPU that is stuck in the kernel is told in the log, and not dumped",
        "echo kernel.softlockup_panic=1 >> /etc/sysctl.d/61-local.conf && sysctl --system",
    ),
    "no-sysrq": State(
        ADVICE,
        "kernel.sysrq is {value}, without 8",
        "a crash asked for from the console (xl sysrq DOMAIN c) is ignored",
        "echo kernel.sysrq={wanted} >> /etc/sysctl.d/61-local.conf && sysctl --system",
    ),
}
