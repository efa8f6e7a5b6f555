"""Guests: a YAML file of a few lines, checked, and the xl configuration made from it.

People write these (lab/guests/*.yaml), tests load them and override a field or two. The rule: a
wrong field is refused with its name and what was expected, before anything is started. The fields
are described in docs/lab.md. Source of the configuration: xl.cfg(5).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import yaml

from lab import LabError
from pvdump.script import text
from pvdump.script.config import OPTIONS, RUN
from pvdump.service import records

ROOT = Path(__file__).resolve().parent.parent
IMAGES = {
    "image-elf": ROOT / "out/pvdump.elf",
    "image-bin": ROOT / "out/pvdump.bin",
    "image-fw": ROOT / "out/pvdump.fw",
    "pvboot-elf": ROOT / "out/pvboot.elf",
    "pvboot-fw": ROOT / "out/pvboot.fw",
}
# Any other kernel is an image or a file of the host.
KERNELS = ("debian", "disk")
Action = Literal["destroy", "restart", "rename-restart", "preserve", "soft-reset"]
Backend = Literal["blkback", "qdisk"]
EVENTS = ("on_poweroff", "on_reboot", "on_watchdog", "on_crash", "on_soft_reset")


@dataclass(frozen=True)
class Disk:
    """A Disk is a PV disk of a guest.

    Attributes:
        vdev: Its name in the guest, such as "xvdb".
        size: MiB of the file that is made for it; 0 if there is a `file`.
        file: Raw file of the host.
        backend: The backend in dom0.
        readonly: The guest may not write to it.
    """

    vdev: str
    size: int = 0
    file: Path | None = None
    backend: Backend = "blkback"
    readonly: bool = False

    def check(self, where: str) -> None:
        """Check the fields; `where` begins the message of an error. Raises LabError."""
        if not re.fullmatch(r"xvd[a-z]+[0-9]*", self.vdev):
            raise LabError(f"{where}: vdev: a name such as xvdb expected, {self.vdev!r} found")
        if bool(self.size) == bool(self.file):
            raise LabError(f"{where}: either size (MiB) or file expected")


@dataclass(frozen=True)
class Guest:
    """A Guest has the fields of a guest's YAML file, which docs/lab.md describes."""

    name: str
    type: Literal["hvm", "pvh", "firmware"]
    kernel: str
    ramdisk: str = ""
    script: str = ""
    imports: tuple[str, ...] = ()
    memory: int = field(default=64, metadata={"least": 8})
    vcpus: int = field(default=1, metadata={"least": 1})
    cmdline: str = ""
    disks: tuple[Disk, ...] = ()
    suite: Literal["", "bookworm", "trixie", "bullseye", "trixie-backports"] = ""
    run: str = ""
    files: dict[str, str] = field(default_factory=dict)
    programs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    on_poweroff: Action = "destroy"
    on_reboot: Action = "destroy"
    on_watchdog: Action = "destroy"
    on_crash: Action = "preserve"
    on_soft_reset: Action = "soft-reset"
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path | str, **overrides: Any) -> Guest:
        """Read a guest from a YAML file; `overrides` replace its fields. Raises LabError."""
        path = Path(path)
        try:
            data = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise LabError(f"{path}: {error}") from None
        if not isinstance(data, dict):
            raise LabError(f"{path}: expected fields (name: ..., type: ...)")
        data.setdefault("name", path.stem)
        return cls.parse({**data, **overrides}, str(path), path.parent)

    @classmethod
    def parse(cls, data: dict[str, Any], where: str = "guest", base: Path = ROOT) -> Guest:
        """Make a guest from its fields.

        Args:
            data: The fields.
            where: Begins the message of an error, such as the YAML file's name.
            base: The folder that relative file names start from.

        Raises:
            LabError: A field is wrong.
        """
        try:
            guest = records.build(cls, data, f"{where}: ")
        except ValueError as error:
            raise LabError(str(error)) from None
        guest._consistent(where)
        return replace(
            guest,
            kernel=_file(guest.kernel, base),
            ramdisk=_file(guest.ramdisk, base) if guest.ramdisk else "",
            script=str(base / guest.script) if guest.script else "",
            imports=tuple(str(base / place) for place in guest.imports),
            files={name: _file(path, base) for name, path in guest.files.items()},
            disks=tuple(
                replace(disk, file=base / disk.file) if disk.file else disk for disk in guest.disks
            ),
        )

    def check(self) -> None:
        """Check that the files of the host that it names exist. Raises LabError."""
        named = [(f"disk {disk.vdev}", str(disk.file)) for disk in self.disks if disk.file]
        named += [(f"file {name}", path) for name, path in self.files.items()]
        named += [("ramdisk", self.ramdisk)] if self.ramdisk else []
        named += [("script", self.script)] if self.script else []
        named += [("kernel", self.kernel)] if self.kernel not in KERNELS else []
        for what, name in named:
            try:
                image(name)
            except LabError as error:
                raise LabError(f"guest {self.name}: {what}: {error}") from None
        self.text()

    def text(self) -> bytes:
        """Return what its script becomes for pvboot, with options before it where they belong.

        Raises:
            LabError: The script or a module of it cannot be used.
        """
        if not self.script:
            return b""
        try:
            path = Path(self.script)
            whole = text.compose(text.read(path), text.modules(map(Path, self.imports)), str(path))
        except (OSError, text.ScriptError) as error:
            raise LabError(f"guest {self.name}: {error}") from None
        options = self.run or OPTIONS
        return options.encode() + whole if self.type == "firmware" else whole

    @property
    def linux(self) -> bool:
        """Return whether it boots Debian's kernel with the lab's initramfs, which runs `run`."""
        return self.kernel == "debian"

    @property
    def boots_from_lab(self) -> bool:
        """Return whether it boots by GRUB from a disk that the lab makes (see lab.bootdisk)."""
        return self.linux and self.type == "hvm"

    @property
    def boots_from_disk(self) -> bool:
        """Return whether it boots from the first of its own disks."""
        return self.kernel == "disk"

    @property
    def closes_front_ends(self) -> bool:
        """Return whether the lab closes its front ends at a soft reset, which saves xl 10 s."""
        return self.on_soft_reset == "soft-reset"

    def _consistent(self, where: str) -> None:
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,39}", self.name):
            raise LabError(f"{where}: name {self.name!r}: letters, digits, -, _ and . only")
        for number, disk in enumerate(self.disks):
            disk.check(f"{where}: disks[{number}]")
        if len({disk.vdev for disk in self.disks}) != len(self.disks):
            raise LabError(f"{where}: disks: two have the same vdev")
        if self.kernel in KERNELS and self.type == "firmware":
            raise LabError(f"{where}: type firmware boots an ELF file, not kernel: {self.kernel}")
        if self.boots_from_disk and [disk.vdev for disk in self.disks[:1]] != ["xvda"]:
            raise LabError(f"{where}: kernel: disk boots the first of disks, which must be xvda")
        if self.boots_from_disk and self.cmdline:
            raise LabError(f"{where}: kernel: disk has no cmdline; its boot loader has one")
        if self.ramdisk and (self.kernel in KERNELS or self.type == "firmware"):
            raise LabError(f"{where}: ramdisk is for a kernel that is a file")
        if self.type == "firmware" and self.cmdline:
            raise LabError(f"{where}: type firmware has no cmdline; its text goes into run")
        if self.script and not self.kernel.startswith("pvboot"):
            raise LabError(f"{where}: script is for kernel: pvboot-elf or pvboot-fw")
        if self.imports and not self.script:
            raise LabError(f"{where}: imports are for a script")
        if self.script and self.ramdisk:
            raise LabError(f"{where}: a script stands in ramdisk's place")
        if self.files and not self.linux:
            raise LabError(f"{where}: files are for kernel: debian")
        if (self.programs or self.modules) and not self.linux:
            raise LabError(f"{where}: programs and modules are for kernel: debian")
        if self.suite and not self.linux:
            raise LabError(f"{where}: suite is for kernel: debian")
        if self.run and self.type == "pvh" and not self.linux:
            raise LabError(f"{where}: run is for kernel: debian and for type: firmware")

    def config(self, folder: str, devices: list[str]) -> str:
        """Return the xl configuration.

        Args:
            folder: dom0's folder with the files "kernel", "ramdisk" and "module".
            devices: dom0's block device of each disk, and of the boot disk if there is one.
        """
        disks = [xl_disk(disk, dev) for disk, dev in zip(self.disks, devices, strict=False)]
        values: dict[str, Any] = {
            "name": self.name,
            "type": "pvh" if self.type == "pvh" else "hvm",
            "memory": self.memory,
            "vcpus": self.vcpus,
            **{event: getattr(self, event) for event in EVENTS},
        }
        if self.type != "pvh":
            serial = f"file:/var/log/xen/serial-{self.name}.log"
            values |= {"vga": "none", "vnc": 0, "serial": serial}
        if self.type == "firmware":
            values |= {"firmware_override": f"{folder}/kernel", "bios": "seabios"}
            values["bios_path_override"] = f"{folder}/module"
        elif self.boots_from_lab:
            values["hdtype"] = "ahci"
            disks.append(xl_disk(Disk("hda", backend="qdisk"), devices[-1]))
        elif self.boots_from_disk and self.type == "hvm":
            # SeaBIOS needs a disk that QEMU emulates: xl has one made for hda. Linux calls it xvda.
            values |= {"hdtype": "ahci", "boot": "c"}
            disks[0] = xl_disk(replace(self.disks[0], vdev="hda"), devices[0])
        else:
            line = self.cmdline or (RUN if self.script else "")
            values |= {"kernel": f"{folder}/kernel", "cmdline": line}
            if self.linux or self.ramdisk or self.script:
                values["ramdisk"] = f"{folder}/ramdisk"
        values["disk"] = disks
        values |= self.extra
        return "".join(f"{name} = {_xl(value)}\n" for name, value in values.items())


def image(name: str) -> Path:
    """Return the file or block device for an image's name, such as "image-bin", or a path.

    Raises:
        LabError: It does not exist.
    """
    path = IMAGES.get(name, Path(name))
    if not path.is_file() and not path.is_block_device():
        hint = "; run ./build.py image first" if name in IMAGES else ""
        raise LabError(f"no file {path}{hint}")
    return path


def xl_disk(disk: Disk, device: str) -> str:
    """Return a disk in the form of xl's configuration.

    Args:
        disk: The disk.
        device: dom0's block device, or with the backend qdisk a file in dom0.
    """
    access = "ro" if disk.readonly else "rw"
    how = "backendtype=phy" if disk.backend == "blkback" else "backendtype=qdisk"
    return f"format=raw,vdev={disk.vdev},access={access},{how},target={device}"


def _xl(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_xl(item) for item in value) + "]"
    if isinstance(value, (bool, int)):
        return str(int(value))
    return '"' + str(value).replace("\\", "\\\\").replace('"', '\\"') + '"'


def _file(name: str, base: Path) -> str:
    return name if name in KERNELS or name in IMAGES else str(base / name)
