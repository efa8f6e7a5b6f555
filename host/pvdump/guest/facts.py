"""The facts of a guest that doctor and setup decide by, read once.

The rule: a fact that cannot be read is None or "", and each file is below a root, so that tests lay
out whole systems.
"""

from __future__ import annotations

import contextlib
import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Optional

from pvfw.errors import DumpError

from ..arm import arming, image, kexec, status
from ..arm.estimate import estimate
from ..arm.kexec import State
from . import loaders, rivals, systemd, targetlook, xen
from .loaders import Loader
from .rivals import Rival
from .targetlook import Look
from .xen import Disk, Xen, text

MIB = 1 << 20
GIB = 1 << 30
# docs/memory.md: what 4 MiB hold where Linux' identity map is in pages of 2 MiB, and what each
# further GiB of memory takes.
RESERVED = 4 * MIB
HELD, MAP = 330, 4096  # GiB, bytes
LARGE = 2  # times what is needed; more is lost to the guest
SYSCTLS = (
    *("panic_on_oops", "unknown_nmi_panic", "hung_task_panic", "softlockup_panic"),
    "sysrq",
)
UNITS = (
    *("pvdump.service", "pvdump-collect.service", "pvdump-hooks.service"),
    "pvdump-check.timer",
)
# Where pvboot boots the guest.
BOOTED = "pvdump-booted.service"
# What pvboot calls itself to the kernel; nothing else that boots Xen's guests does so.
# Source: pvfw/kernel/params.py; Linux Documentation/arch/x86/boot.rst, type_of_loader.
PVBOOT = 0xFF
CONFIG_MAX = 4 * MIB  # of a kernel's configuration


@dataclass
class Guest:
    """A guest, as its kernel and its files tell of it.

    Attributes:
        root: of its files.
        crash: what the kernel says of its crash kernel.
        xen: None where there is no Xen.
        disks: driven by xen-blkfront.
        release: of the running kernel.
        config: its configuration, {} where it cannot be read.
        btf: whether it has BTF.
        cmdline: its command line.
        memory: bytes.
        gigabyte_pages: whether the CPU has pages of 1 GiB.
        kexec: whether the program is there.
        sysctls: of kernel.*, numbers by name.
        loader: None where none is known.
        rivals: other crash kernels' packages.
        image: its path.
        has_image: whether it is there, and is one.
        signed: whether it has a signature.
        armed: the record of what pvdump has loaded, {} where it has nothing that can be read.
        unfit: why what is loaded would not dump, or "".
        units: of wanted_units(), those that are enabled.
        waiting: whether they wait for what the settings name.
        by_pvboot: whether pvboot has booted it.
        settings_error: why the settings cannot be read, or "".
        targets: that are configured, as they look.
        level: of the dump, as the configuration of the image has it.
        estimate: bytes that a dump would take, None where it is not known.
    """

    root: Path
    crash: State
    xen: Optional[Xen] = None
    disks: list[Disk] = field(default_factory=list)
    release: str = ""
    config: Mapping[str, str] = field(default_factory=dict)
    btf: bool = False
    cmdline: str = ""
    memory: int = 0
    gigabyte_pages: bool = False
    kexec: bool = False
    sysctls: Mapping[str, int] = field(default_factory=dict)
    loader: Optional[Loader] = None
    rivals: list[Rival] = field(default_factory=list)
    image: Path = image.PLACES[-1]
    has_image: bool = False
    signed: bool = False
    armed: Mapping[str, Any] = field(default_factory=dict)
    unfit: str = ""
    units: tuple[str, ...] = ()
    waiting: bool = True
    by_pvboot: bool = False
    settings_error: str = ""
    targets: list[Look] = field(default_factory=list)
    level: int = 0
    estimate: Optional[int] = None

    def need(self) -> int:
        """Return the bytes to reserve for the crash kernel, whole MiB."""
        more = 0
        if not self.gigabyte_pages:
            more = max(0, -(-self.memory // GIB) - HELD) * MAP
        return RESERVED + -(-more // MIB) * MIB

    def wanted_units(self) -> tuple[str, ...]:
        """Return the units that are to be enabled."""
        return (*UNITS, BOOTED) if self.by_pvboot else UNITS

    def is_enough(self, size: int) -> bool:
        """Tell whether a reservation is large enough, and not larger than what is useful."""
        return self.need() <= size <= LARGE * self.need()


def read(root: Path, store: Mapping[str, str]) -> Guest:
    """Read the facts of a guest.

    Args:
        root: of its files.
        store: its nodes in xenstore, as xen.read_store() gives them.
    """
    guest = Guest(root, kexec.state(root), xen.read(root, store), xen.read_disks(root, store))
    guest.release = text(root / "proc/sys/kernel/osrelease")
    guest.config = _config(root, guest.release)
    guest.btf = (root / "sys/kernel/btf/vmlinux").exists()
    guest.cmdline = text(root / "proc/cmdline")
    guest.memory = _memory(root)
    guest.gigabyte_pages = " pdpe1gb " in text(root / "proc/cpuinfo").replace("\n", " ") + " "
    guest.kexec = any((root / place / "kexec").exists() for place in ("sbin", "usr/sbin"))
    numbers = {name: _number(root / "proc/sys/kernel" / name) for name in SYSCTLS}
    guest.sysctls = {name: value for name, value in numbers.items() if value is not None}
    guest.loader = loaders.find(root)
    guest.rivals = rivals.read(root)
    _read_image(guest)
    _read_armed(guest)
    guest.by_pvboot = _number(root / "proc/sys/kernel/bootloader_type") == PVBOOT
    wanted = guest.wanted_units()
    guest.units = tuple(unit for unit in wanted if rivals.is_wanted(root, unit))
    guest.settings_error, values, guest.targets = targetlook.read(root)
    guest.waiting = bool(guest.settings_error) or systemd.is_waiting(root, values)
    guest.level = values["level"]
    with contextlib.suppress(DumpError, OSError):
        guest.estimate = estimate(guest.level, values["compress"], root)
    return guest


def _read_armed(guest: Guest) -> None:
    try:
        guest.armed = arming.load_record(guest.root)
        if guest.armed and guest.crash.loaded:
            guest.unfit = status.why_not(guest.armed, guest.root)
    except DumpError as error:
        guest.unfit = str(error)


def _read_image(guest: Guest) -> None:
    guest.image = image.find()
    with contextlib.suppress(DumpError):
        guest.signed = image.is_signed(image.read(guest.image))
        guest.has_image = True


def _config(root: Path, release: str) -> dict[str, str]:
    """Return the configuration of the kernel."""
    raw = ""
    for path in (root / f"boot/config-{release}", root / f"lib/modules/{release}/config"):
        raw = raw or text(path)
    if not raw:
        try:
            with gzip.open(root / "proc/config.gz", "rb") as stream:
                raw = stream.read(CONFIG_MAX).decode(errors="replace")
        except (OSError, EOFError):
            return {}
    return dict(re.findall(r"^(CONFIG_\w+)=(.*)$", raw, re.MULTILINE))


def _memory(root: Path) -> int:
    match = re.search(r"^MemTotal:\s+(\d+) kB", text(root / "proc/meminfo"), re.MULTILINE)
    return int(match[1]) * 1024 if match else 0


def _number(path: Path) -> int | None:
    found = text(path)
    return int(found) if re.fullmatch(r"-?\d+", found) else None
