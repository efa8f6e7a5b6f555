"""The boot loaders that pvdump can give a kernel command line, in a table, one object each.

Used by facts.py, doctor and setup. The rules: a drop-in where the loader reads one, else the
loader's own tool; nothing of what a loader generates is written directly.
Source: Debian's grub-mkconfig (grub.d) and u-boot-update; grubby's BLS entries; kernel-install's
90-loaderentry.install; Alpine's update-extlinux.
"""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, Union

from .. import arguments
from . import programs, textfile
from .steps import File, Folder, Program, folders
from .xen import text

Steps = list[Union[File, Folder, Program]]
WORD = re.compile(r"""(?<![^\s"'])crashkernel=([^\s"']*)""")
COMMENT = "# Memory for the crash kernel of pvdump. `pvdump remove` takes this file away.\n"


class Loader(Protocol):
    """A boot loader.

    Attributes:
        name: for a person.
    """

    name: str

    def is_here(self, root: Path) -> bool:
        """Tell whether it boots this system."""

    def next_boot(self, root: Path) -> str:
        """Return the value of crashkernel= that the next boot has, or ""."""

    def steps(self, root: Path, value: str) -> Steps:
        """Return what gives the next boot crashkernel=VALUE; [] where it has it."""


def find(root: Path) -> Loader | None:
    """Return the boot loader of a system, None where none is known."""
    return next((loader for loader in LOADERS if loader.is_here(root)), None)


class Grub:
    """GRUB of Debian and what comes from it: a drop-in in /etc/default/grub.d.

    Drop-ins are read in the order of their names, and the last crashkernel= counts: this name comes
    after kdump-tools.cfg.
    """

    name = "GRUB"
    FOLDER = Path("etc/default/grub.d")
    FILE = "zz-pvdump.cfg"
    CONFIG = Path("boot/grub/grub.cfg")
    RUN = ("update-grub",)

    def is_here(self, root: Path) -> bool:
        tool = any((root / place / "update-grub").exists() for place in ("usr/sbin", "sbin"))
        return tool and (root / self.CONFIG).exists()

    def next_boot(self, root: Path) -> str:
        return _first_kernel(text(root / self.CONFIG), r"linux\S*")

    def steps(self, root: Path, value: str) -> Steps:
        content = (
            f"{COMMENT}"
            f'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT crashkernel={value}"\n'
        )
        made = File(root / self.FOLDER / self.FILE, content)
        return _with_tool(self, root, value, made, self.RUN, "writes boot/grub/grub.cfg anew")


class Grubby:
    """GRUB of Red Hat's systems, which have grubby: BLS entries in /boot/loader/entries."""

    name = "GRUB with grubby"
    ENTRIES = "boot/loader/entries/*.conf"

    def is_here(self, root: Path) -> bool:
        tool = any((root / place / "grubby").exists() for place in ("usr/sbin", "sbin", "usr/bin"))
        return tool and any(root.glob(self.ENTRIES))

    def next_boot(self, root: Path) -> str:
        return _bls(root, [self.ENTRIES])

    def steps(self, root: Path, value: str) -> Steps:
        before = self.next_boot(root)
        if before == value:
            return []
        # The kernel that is the default speaks for all: new ones take its words over.
        shown = programs.run(["grubby", "--info=DEFAULT"])
        old = WORD.search(shown)
        all_kernels = ["grubby", "--update-kernel=ALL"]
        undo = [f"--args=crashkernel={old[1]}"] if old else ["--remove-args=crashkernel"]
        words = [*all_kernels, f"--args=crashkernel={value}"]
        return [Program(words, [*all_kernels, *undo], "changes the entries of all kernels")]


class SystemdBoot:
    """systemd-boot: /etc/kernel/cmdline, from which kernel-install makes the entries anew."""

    name = "systemd-boot"
    FILE = Path("etc/kernel/cmdline")
    PLACES = ("boot", "efi", "boot/efi")

    def is_here(self, root: Path) -> bool:
        tool = any((root / place / "kernel-install").exists() for place in ("usr/bin", "bin"))
        loader = any(
            (root / place / "EFI/systemd/systemd-bootx64.efi").exists() for place in self.PLACES
        )
        return tool and loader

    def next_boot(self, root: Path) -> str:
        return _bls(root, [f"{place}/loader/entries/*.conf" for place in self.PLACES])

    def steps(self, root: Path, value: str) -> Steps:
        made = File(root / self.FILE, _cmdline(root, value))
        adds = [
            ("kernel-install", "add", version, str(kernel))
            for version, kernel in self._kernels(root)
        ]
        if not made.needed() and self.next_boot(root) == value:
            return []
        undo = [Program((), words, "") for words in adds]
        run = [Program(words, (), "writes the entry of this kernel anew") for words in adds]
        return [*undo, *folders(made.path), made, *run]

    def _kernels(self, root: Path) -> list[tuple[str, Path]]:
        """Return the version and the file of each kernel that is installed."""
        found = []
        for folder in sorted(root.glob("lib/modules/*")):
            version = folder.name
            places = (folder / "vmlinuz", root / f"boot/vmlinuz-{version}")
            kernel = next((path for path in places if path.exists()), None)
            if kernel is not None:
                found.append((version, kernel))
        return found


class Extlinux:
    """extlinux.conf of Debian's u-boot-menu: a drop-in, or /etc/kernel/cmdline if that is read."""

    name = "extlinux (u-boot-menu)"
    FILE = Path("etc/u-boot-menu/conf.d/zz-pvdump.conf")
    CONFIG = Path("boot/extlinux/extlinux.conf")
    SETTINGS = ("etc/default/u-boot", "usr/share/u-boot-menu/conf.d/*.conf")
    RUN = ("u-boot-update",)

    def is_here(self, root: Path) -> bool:
        # Older versions read no drop-ins.
        tool = text(root / "usr/sbin/u-boot-update")
        return "/etc/u-boot-menu/conf.d" in tool and (root / self.CONFIG).exists()

    def next_boot(self, root: Path) -> str:
        return _first_kernel(text(root / self.CONFIG), "append")

    def steps(self, root: Path, value: str) -> Steps:
        if (root / SystemdBoot.FILE).exists() and not self._has_parameters(root):
            made = File(root / SystemdBoot.FILE, _cmdline(root, value))
        else:
            line = f'U_BOOT_PARAMETERS="${{U_BOOT_PARAMETERS:-ro quiet}} crashkernel={value}"\n'
            made = File(root / self.FILE, COMMENT + line)
        return _with_tool(self, root, value, made, self.RUN, "writes extlinux.conf anew")

    def _has_parameters(self, root: Path) -> bool:
        files = [path for pattern in self.SETTINGS for path in root.glob(pattern)]
        files += [p for p in root.glob("etc/u-boot-menu/conf.d/*.conf") if p.name != self.FILE.name]
        return any(re.search(r"^\s*U_BOOT_PARAMETERS=", text(path), re.M) for path in files)


class UpdateExtlinux:
    """extlinux.conf of Alpine's update-extlinux, which reads one file."""

    name = "extlinux (update-extlinux)"
    FILE = Path("etc/update-extlinux.conf")
    CONFIG = Path("boot/extlinux.conf")
    RUN = ("update-extlinux",)
    OPTION = re.compile(r'^(default_kernel_opts=")([^"\n]*)(")', re.MULTILINE)

    def is_here(self, root: Path) -> bool:
        config = text(root / self.FILE)
        return self.OPTION.search(config) is not None and (root / self.CONFIG).exists()

    def next_boot(self, root: Path) -> str:
        return _first_kernel(text(root / self.CONFIG), "append")

    def steps(self, root: Path, value: str) -> Steps:
        content = self.OPTION.sub(
            lambda found: found[1] + with_word(found[2], value) + found[3],
            textfile.read(root / self.FILE) or "",
        )
        made = File(root / self.FILE, content)
        return _with_tool(self, root, value, made, self.RUN, "writes extlinux.conf anew")


LOADERS: tuple[Loader, ...] = (Grubby(), Grub(), SystemdBoot(), Extlinux(), UpdateExtlinux())


def crashkernel(line: str) -> str:
    """Return the value of crashkernel= that counts on a command line, the last one, or ""."""
    values = WORD.findall(line)
    return values[-1] if values else ""


def size(value: str) -> int:
    """Return the bytes that a value of crashkernel= reserves, if it is a plain size; else 0."""
    try:
        return arguments.size(value)
    except ArgumentTypeError:
        return 0


def with_word(line: str, value: str) -> str:
    """Return a command line with one crashkernel=, at its end."""
    words = [word for word in line.split() if not word.startswith("crashkernel=")]
    return " ".join([*words, f"crashkernel={value}"])


def _with_tool(
    loader: Loader, root: Path, value: str, made: File, run: Sequence[str], why: str
) -> Steps:
    """Return the steps of a file and of the tool that reads it, now and when it is undone."""
    if not made.needed() and loader.next_boot(root) == value:
        return []
    return [Program((), run, ""), *folders(made.path), made, Program(run, (), why)]


def _cmdline(root: Path, value: str) -> str:
    """Return a new /etc/kernel/cmdline."""
    line = textfile.read(root / SystemdBoot.FILE)
    if line is None:
        # kernel-install then takes the running kernel's, without what the loader put there.
        words = text(root / "proc/cmdline").split()
        line = " ".join(w for w in words if not w.startswith(("BOOT_IMAGE=", "initrd=")))
    return with_word(line, value) + "\n"


def _first_kernel(config: str, keyword: str) -> str:
    """Return the value of the last crashkernel= of the first kernel in a loader's configuration."""
    line = re.search(rf"^\s*{keyword}\s(.*)$", config, re.MULTILINE | re.IGNORECASE)
    return crashkernel(line[1]) if line else ""


def _bls(root: Path, patterns: Sequence[str]) -> str:
    """Return the value that the BLS entries have; that of the newest kernel where they differ."""
    entries = [path for pattern in patterns for path in root.glob(pattern)]
    entries = [path for path in entries if "rescue" not in path.name]
    if not entries:
        return ""
    newest = max(
        entries, key=lambda path: [int(n) for n in re.findall(r"\d+", path.stem.partition("-")[2])]
    )
    return _first_kernel(text(newest), "options")
