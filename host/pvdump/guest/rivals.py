"""Linux' own kdump, another crash kernel: Debian's kdump-tools, Red Hat's kdump.service.

Used by facts.py, doctor and setup. There is one crash kernel at a time. kdump-tools is in the way
also when it is disabled: its udev rule unloads what is loaded after a change of memory or CPUs.
Source: kdump-tools 1.8.1 (50-kdump-tools.rules, kdump-config try-reload); kdump-utils
(98-kexec.rules).
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple, Optional, Union

from . import textfile
from .steps import File, Folder, Program, folders
from .xen import text

UNITS = ("usr/lib/systemd/system", "lib/systemd/system")
RULES = ("usr/lib/udev/rules.d", "lib/udev/rules.d")
SYSTEM = Path("etc/systemd/system")
OVERRIDES = Path("etc/udev/rules.d")
USE_KDUMP = re.compile(r"^(\s*USE_KDUMP=)\S+", re.MULTILINE)
EMPTY_RULE = """\
# This file takes the place of a rule of the same name, which would unload pvdump's crash kernel
# after a change of memory or CPUs. `pvdump remove` takes it away.
"""


class Kind(NamedTuple):
    """A package that loads crash kernels.

    Attributes:
        name: of the package.
        unit: of systemd.
        rule: of udev, its file.
        default: its file with USE_KDUMP=, below the root; None where it has none.
    """

    name: str
    unit: str
    rule: str
    default: Optional[Path]


KINDS = (
    Kind(
        "kdump-tools",
        "kdump-tools.service",
        "50-kdump-tools.rules",
        Path("etc/default/kdump-tools"),
    ),
    Kind("kdump-utils", "kdump.service", "98-kexec.rules", None),
)


class Rival(NamedTuple):
    """A package that is installed.

    Attributes:
        kind: which.
        enabled: whether it loads a crash kernel at boot.
        masked: whether systemd refuses to start its unit.
        rule: its rule where that is in force, else None.
    """

    kind: Kind
    enabled: bool
    masked: bool
    rule: Optional[Path]


def read(root: Path) -> list[Rival]:
    """Return the packages that are installed."""
    found = []
    for kind in KINDS:
        if not any((root / place / kind.unit).exists() for place in UNITS):
            continue
        link = root / SYSTEM / kind.unit
        masked = link.is_symlink() and str(link.readlink()) == "/dev/null"
        wanted = is_wanted(root, kind.unit)
        use = USE_KDUMP.search(text(root / kind.default)) if kind.default else None
        off = use is not None and use[0].endswith("=0")
        rule = next((root / p / kind.rule for p in RULES if (root / p / kind.rule).exists()), None)
        # A file of the same name, or a link to /dev/null, takes its place.
        override = root / OVERRIDES / kind.rule
        if override.exists() or override.is_symlink():
            rule = None
        found.append(Rival(kind, wanted and not masked and not off, masked, rule))
    return found


def is_wanted(root: Path, unit: str) -> bool:
    """Tell whether systemd starts a unit at boot, as `systemctl enable` has it."""
    folders = (root / SYSTEM).glob("*.wants")
    return any(os.path.lexists(folder / unit) for folder in folders)


def take_place(root: Path, rival: Rival) -> list[Union[File, Folder, Program]]:
    """Return the steps after which a package loads and unloads nothing."""
    made: list[Union[File, Folder, Program]] = []
    kind = rival.kind
    if kind.default is not None:
        before = textfile.read(root / kind.default)
        if before is not None and USE_KDUMP.search(before):
            made.append(File(root / kind.default, USE_KDUMP.sub(r"\g<1>0", before)))
    if not rival.masked:
        made.append(
            Program(
                ["systemctl", "mask", "--now", kind.unit],
                ["systemctl", "unmask", kind.unit],
                f"{kind.name} loads no crash kernel any more",
            )
        )
    if rival.rule is not None:
        reload = ["udevadm", "control", "--reload"]
        made += [
            Program((), reload, ""),
            *folders(root / OVERRIDES / kind.rule),
            File(root / OVERRIDES / kind.rule, EMPTY_RULE),
            Program(reload, (), f"the rule of {kind.name} is out of force"),
        ]
    return made
