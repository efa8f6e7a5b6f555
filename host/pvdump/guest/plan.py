"""What `pvdump setup` would change in a guest, as a list of steps; nothing is changed here.

Used by setup.py. The rule: a guest that is set up already gives no steps, so setup can be run as
often as one likes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from pvfw.errors import DumpError

from ..arm import settings
from ..arm.estimate import estimate
from ..streams import pasted
from . import (
    booted,
    checks,
    choice,
    facts,
    loaders,
    rivals,
    settingsfile,
    systemd,
    targetlook,
    textfile,
)
from .changes import Step
from .choice import Choice, Wish
from .facts import MIB, Guest
from .states import DOM0, Finding
from .steps import Action, File, Folder, Program, Sysctl, folders

# States of doctor's in which setup can do nothing for a guest.
HOPELESS = (
    *("not-xen", "dom0", "pv", "no-pv-disk", "no-kexec", "no-kexec-tools", "no-kexec-file"),
    *("no-image", "unsigned"),
)
# States that a person may want to end, by the line of doctor's.
OFFERED = ("no-nmi-panic", "no-hung-panic", "no-lockup-panic", "no-sysrq")
SYSCTL_FILE = Path("etc/sysctl.d/60-pvdump.conf")
SYSCTL_TEXT = """\
# After an oops the kernel panics, so that it is dumped. `pvdump remove` takes this file away.
kernel.panic_on_oops = 1
"""
RELOAD = ["systemctl", "daemon-reload"]
RESTART = ["systemctl", "restart", "pvdump.service"]


@dataclass
class Plan:
    """What setup would do.

    Attributes:
        steps: in their order.
        notes: for a person, lines.
        offers: lines that a person may paste besides.
        reboot: whether the memory is reserved only after a reboot.
    """

    steps: list[Step] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    offers: list[str] = field(default_factory=list)
    reboot: bool = False

    def add(self, more: Sequence[Step]) -> None:
        """Add the steps that change something."""
        known = {step.name() for step in self.steps if isinstance(step, Folder)}
        self.steps += [step for step in more if step.needed() and step.name() not in known]


def make(guest: Guest, target: Optional[str], level: Optional[str]) -> Plan:
    """Make the plan for a guest.

    Args:
        guest: its facts.
        target: that a person asks for, see choice.named(); None to choose.
        level: that a person asks for, None for that of the settings.

    Raises:
        DumpError: pvdump cannot work here, or the target cannot be one.
    """
    found = checks.examine(guest)
    for finding in found:
        if finding.name in HOPELESS:
            raise DumpError(_refusal(finding))
    plan = Plan()
    plan.notes += [f"{f.what}: {f.why}; ask for: {f.mend}" for f in found if f.verdict == DOM0]
    plan.offers += [finding.mend for finding in found if finding.name in OFFERED]
    values = settings.load(guest.root / targetlook.SETTINGS)
    if level is not None:
        values["level"] = settings.level(level)
    chosen = _target(guest, values, target, plan)
    _settings(guest, values, chosen, level, plan)
    changed = bool(plan.steps)
    for rival in guest.rivals:
        if rival.enabled or rival.rule is not None:
            plan.notes.append(f"{rival.kind.name} is installed: pvdump takes its place")
            plan.add(rivals.take_place(guest.root, rival))
    _reservation(guest, plan)
    plan.add([*folders(guest.root / SYSCTL_FILE), File(guest.root / SYSCTL_FILE, SYSCTL_TEXT)])
    plan.add([Sysctl(guest.root / "proc/sys/kernel/panic_on_oops", 1)])
    swap = any(look.swap for look in guest.targets) or (chosen is not None and chosen.swap)
    _units(guest, values, swap, changed, plan)
    return plan


def _refusal(finding: Finding) -> str:
    who = "ask dom0's owner for" if finding.owner else "mend"
    return f"{finding.what}: {finding.why}; {who}: {finding.mend}"


def _target(
    guest: Guest, values: dict[str, Any], target: Optional[str], plan: Plan
) -> Optional[Choice]:
    """Choose the target, and add the steps that make it. Returns None where it stays as it is."""
    if target is None and guest.targets:
        refused = [look for look in guest.targets if look.error]
        if refused and len(refused) == len(guest.targets):
            raise DumpError(
                f"the target of /{targetlook.SETTINGS} is refused: {refused[0].error}; say "
                "--target for another"
            )
        return None
    wish = Wish(
        estimate(values["level"], values["compress"], guest.root),
        values["level"],
        values["directory"],
    )
    if target is not None:
        chosen: Optional[Choice] = choice.named(target, wish)
        reasons: list[str] = []
    else:
        chosen, reasons = choice.best(wish)
    plan.notes += [f"not possible as target: {reason}" for reason in reasons]
    if chosen is None:
        would_do = [f"pvdump setup --target {pasted(path)}" for path in choice.elsewhere(wish)]
        would_do.append(
            "a disk lent by dom0, "
            f'"...,vdev=xvdb,access=rw" of {choice.file_size(wish.need) // MIB} MiB, then '
            "pvdump setup --target /dev/xvdb"
        )
        plan.notes.append("no target: a panic leaves its log on console and in xenstore alone")
        plan.notes += [f"what would do: {line}" for line in would_do]
        return None
    plan.notes.append(f"target: {chosen.what}")
    plan.add(chosen.steps)
    return chosen


def _settings(
    guest: Guest,
    values: dict[str, Any],
    chosen: Optional[Choice],
    level: Optional[str],
    plan: Plan,
) -> None:
    """Write target and level into the settings, and into their values."""
    wanted: dict[str, settingsfile.Value] = {}
    names = [look.name for look in guest.targets]
    if chosen is not None and names[:1] != [chosen.name]:
        # What a person has there stays, as the next one in order.
        names = [chosen.name, *(name for name in names if name != chosen.name)]
        wanted["targets"] = names
        values["targets"] = [settings.target(name) for name in names]
    if level is not None and settings.level(level) != guest.level:
        wanted["level"] = level
    if wanted:
        path = guest.root / targetlook.SETTINGS
        text = settingsfile.edited(textfile.read(path) or "", wanted)
        plan.add([*folders(path), File(path, text)])


def _reservation(guest: Guest, plan: Plan) -> None:
    """Have memory reserved at the next boot."""
    enough = guest.is_enough(guest.crash.reserved)
    plan.reboot = guest.crash.reserved < guest.need()
    value = f"{guest.need() // MIB}M"
    if guest.loader is None:
        if not enough:
            plan.notes.append(
                f"no boot loader that is known here: add crashkernel={value} to the kernel's "
                "command line, in this guest or in dom0 (extra= in xl.cfg)"
            )
        return
    if not guest.is_enough(loaders.size(guest.loader.next_boot(guest.root))):
        plan.add(guest.loader.steps(guest.root, value))


def _units(guest: Guest, values: dict[str, Any], swap: bool, changed: bool, plan: Plan) -> None:
    """Have systemd arm at boot and collect after a panic, and arm now if that is possible."""
    root = guest.root
    if not (root / systemd.RUNNING).exists():
        plan.notes.append(
            "this system has no systemd: have `pvdump collect` and then `pvdump arm` run at boot"
        )
        return
    files = systemd.files(root, values, swap)
    if any(step.needed() for step in files):
        plan.add([Program((), RELOAD, ""), *files, Program(RELOAD, (), "systemd reads its units")])
    missing = [unit for unit in guest.wanted_units() if unit not in guest.units]
    if missing:
        timers = [unit for unit in missing if unit.endswith(".timer")]
        undo = ["systemctl", "disable", "--now", *missing]
        plan.add([Program(["systemctl", "enable", *missing], undo, "from the next boot on")])
        if timers:
            plan.add([Program(["systemctl", "start", *timers], (), "the daily check")])
        if facts.BOOTED in missing:
            # Undone before the unit that takes the counts back is gone.
            made = {"kind": "boots", "key": "on the target"}
            plan.add([Action("count boots, for pvboot", booted.begin, made)])
    ready = guest.crash.reserved >= guest.need()
    if ready and (changed or missing or not guest.armed or not guest.crash.loaded):
        plan.add([Program(RESTART, (), "loads the crash kernel; `pvdump arm` says why if not")])
