"""The checks of `pvdump doctor`, in a table: each finds the states of one subject.

The rule: a check looks at the facts of a guest alone, so that each state can be laid out in a test.
The states and their texts are in states.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Callable

from . import loaders, targetlook, xen
from .facts import MIB, Guest
from .states import DOM0, NO, OK, Finding, found

# Where xl's soft reset fails: from the first to the last version, the one that is mended, how.
BROKEN = (
    ((4, 12, 0), (4, 12, 99), "4.15", "an assertion in libxl"),
    ((4, 13, 0), (4, 13, 2), "4.13.3", "an assertion in libxl"),
    ((4, 14, 0), (4, 14, 1), "4.14.2", "an assertion in libxl"),
    ((4, 16, 0), (4, 16, 3), "4.16.4", "Failed to apply CPUID policy"),
    ((4, 17, 0), (4, 17, 0), "4.17.1", "Failed to apply CPUID policy"),
)
SYSRQ_DUMPS = 8  # of kernel.sysrq: sysrq-c from the console
SECTOR = "512"


def platform(guest: Guest) -> Iterator[Finding]:
    """Xen, the type of the guest, its toolstack."""
    host = guest.xen
    if host is None:
        yield found("not-xen")
        return
    if host.dom0:
        yield found("dom0")
        return
    version = host.shown()
    if host.kind == "PV":
        yield found("pv")
    elif host.toolstack == xen.EC2:
        yield found("ec2")
    elif host.kind == "PVH" and host.toolstack != xen.XAPI:
        line = 'type = "hvm"    # in the guest\'s xl.cfg, in place of type = "pvh"'
        if host.toolstack == xen.QUBES:
            line = "qvm-prefs VMNAME virt_mode hvm    # in dom0"
        yield found("pvh", toolstack=host.toolstack, line=line)
    else:
        yield found(
            "platform", kind=host.kind or "unknown", version=version, toolstack=host.toolstack
        )
    if host.toolstack == xen.XAPI:
        yield found("xapi-once", uuid=host.uuid)
    if host.toolstack in (xen.LIBXL, xen.UNKNOWN) and host.kind != "PV":
        for first, last, fixed, fault in BROKEN:
            if host.version and first <= host.version <= last:
                yield found("xl-broken", version=version, fixed=fixed, fault=fault)
        yield found("dom0-actions")


def disks(guest: Guest) -> Iterator[Finding]:
    """The PV disks and their backends."""
    if not guest.disks:
        yield found("no-pv-disk")
        return
    yield found("disks", disks=", ".join(_shown(disk) for disk in guest.disks))
    for disk in guest.disks:
        size = disk.features.get("sector-size", SECTOR)
        if size != SECTOR:
            yield found("large-sectors", disk=disk.name, size=size, backend=disk.backend)
        offered = [disk.features.get(f"feature-{name}") for name in ("flush-cache", "barrier")]
        if disk.backend and "1" not in offered:
            yield found("no-flush", disk=disk.name)


def kernel(guest: Guest) -> Iterator[Finding]:
    """Whether the kernel loads a crash kernel, and tells of itself."""
    release = guest.release
    if not guest.crash.known:
        yield found("no-kexec", release=release)
        return
    findings = []
    if not guest.kexec:
        findings.append(found("no-kexec-tools"))
    if guest.crash.disabled:
        findings.append(found("kexec-frozen" if guest.crash.loaded else "kexec-disabled"))
    if not guest.has_image:
        findings.append(found("no-image", image=guest.image))
    elif guest.crash.lockdown != "none" and not guest.signed:
        findings.append(found("unsigned", lockdown=guest.crash.lockdown, image=guest.image))
    if guest.crash.lockdown != "none" and guest.config and "CONFIG_KEXEC_FILE" not in guest.config:
        findings.append(found("no-kexec-file", lockdown=guest.crash.lockdown, release=release))
    if not guest.btf:
        findings.append(found("no-btf", release=release))
    yield from findings or [found("kernel", release=release)]


def reservation(guest: Guest) -> Iterator[Finding]:
    """The memory for the crash kernel."""
    if not guest.crash.known:
        return
    need, size = guest.need() // MIB, guest.crash.reserved // MIB
    value = loaders.crashkernel(guest.cmdline)
    following = guest.loader.next_boot(guest.root) if guest.loader else ""
    if guest.crash.reserved == 0:
        if value:
            yield found("reservation-failed", value=value, memory=guest.memory // MIB)
        elif following:
            yield found("reboot", next=following, loader=guest.loader.name if guest.loader else "")
        elif guest.loader is None:
            yield found("no-loader", need=need)
        else:
            yield found("not-reserved", need=need)
    elif guest.crash.reserved < guest.need():
        yield found("too-small", size=size, need=need)
    elif not guest.is_enough(guest.crash.reserved):
        yield found("larger", size=size, need=need)
    else:
        yield found("reserved", size=size)
    if guest.loader is not None:
        yield found("loader", loader=guest.loader.name, next=following or "none")
    yield from _overridden(guest)


def _overridden(guest: Guest) -> Iterator[Finding]:
    """A crashkernel= in GRUB's settings after which another file has one of its own."""
    files = [guest.root / "etc/default/grub"]
    files += sorted((guest.root / loaders.Grub.FOLDER).glob("*.cfg"))
    said = [(path, loaders.crashkernel(_settings(xen.text(path)))) for path in files]
    said = [(path, value) for path, value in said if value]
    if not isinstance(guest.loader, loaders.Grub) or not said:
        return
    last, counting = said[-1]
    if guest.is_enough(loaders.size(counting)):
        return
    for path, value in said[:-1]:
        if value != counting and last.name != loaders.Grub.FILE:
            file, other = (f"/{each.relative_to(guest.root)}" for each in (path, last))
            yield found("overridden", ours=value, file=file, other=other)


def _settings(text: str) -> str:
    """Return a shell fragment without its comments."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    return "\n".join(lines)


def rivals(guest: Guest) -> Iterator[Finding]:
    """Linux' own kdump."""
    for rival in guest.rivals:
        name = rival.kind.name
        if rival.enabled:
            yield found("rival", rival=name)
        elif rival.rule is not None:
            path = f"/{rival.rule.relative_to(guest.root)}"
            yield found("rival-rule", rival=name, rule=path, name=rival.kind.rule)


def armed(guest: Guest) -> Iterator[Finding]:
    """What is loaded, and what the next boot loads."""
    if not guest.crash.known:
        return
    if not guest.crash.loaded:
        yield found("not-armed")
    elif guest.unfit:
        yield found("unfit", why=guest.unfit)
    elif not guest.armed:
        yield found("other-image")
    else:
        yield found("armed")
    missing = [unit for unit in guest.wanted_units() if unit not in guest.units]
    if missing:
        yield found("not-enabled", units=" ".join(missing))
    elif not guest.waiting:
        yield found("not-waiting")


def targets(guest: Guest) -> Iterator[Finding]:
    """Where a dump goes, and whether it fits."""
    file = f"/{targetlook.SETTINGS}"
    if guest.settings_error:
        yield found("settings", why=guest.settings_error, file=file)
    elif not guest.targets:
        yield found("no-target", file=file)
    usable = any(not look.error for look in guest.targets)
    for look in guest.targets:
        room = "?" if look.room is None else look.room // MIB
        if look.error:
            bad = "target-holds-dump" if look.dump else "target-refused"
            yield found(
                "spare-refused" if usable else bad, target=look.name, why=look.error, file=file
            )
        elif guest.estimate and look.room is not None and look.room < guest.estimate:
            estimate = -(-guest.estimate // MIB)
            yield found("target-small", target=look.name, room=room, estimate=estimate)
        else:
            yield found("target", target=look.name, room=room)
        if look.swap and not (guest.root / targetlook.SWAP_UNIT).exists():
            yield found("swap-first", target=look.name)


def panics(guest: Guest) -> Iterator[Finding]:
    """Which faults of the kernel end in a panic."""
    findings = [
        found(state)
        for name, state in (
            ("panic_on_oops", "no-oops-panic"),
            ("unknown_nmi_panic", "no-nmi-panic"),
            ("hung_task_panic", "no-hung-panic"),
            ("softlockup_panic", "no-lockup-panic"),
        )
        if guest.sysctls.get(name) == 0
    ]
    sysrq = guest.sysctls.get("sysrq", 1)
    # 1 is "all"; other numbers are a sum of what is allowed.
    if sysrq != 1 and not sysrq & SYSRQ_DUMPS:
        findings.append(found("no-sysrq", value=sysrq, wanted=sysrq | SYSRQ_DUMPS))
    yield from findings or [found("panics")]


CHECKS: tuple[Callable[[Guest], Iterable[Finding]], ...] = (
    *(platform, disks, kernel, reservation, rivals, armed, targets, panics),
)


def examine(guest: Guest) -> list[Finding]:
    """Return what all checks find. Where there is no guest of Xen, the rest is not looked at."""
    first = list(platform(guest))
    if first[0].name in ("not-xen", "dom0"):
        return first
    return [finding for check in CHECKS for finding in check(guest)]


def verdict(findings: Iterable[Finding]) -> str:
    """Return the worst of some findings: NO, DOM0 or OK."""
    verdicts = {finding.verdict for finding in findings}
    return next((each for each in (NO, DOM0) if each in verdicts), OK)


def _shown(disk: xen.Disk) -> str:
    """Return a disk with its backend and what that offers, for a person."""
    offers = [
        name.replace("feature-", "") + ("" if value == "1" else f" {value}")
        for name, value in disk.features.items()
        if value != "0"
    ]
    backend = ": ".join(filter(None, [disk.backend, ", ".join(offers)]))
    return f"{disk.name} ({backend})" if backend else disk.name
