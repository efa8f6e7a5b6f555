"""Disks with an installed Debian: configured packages, GRUB, an initrd of its own.

Used by lab.installed. mmdebstrap makes the tree of files from packages that lie in the cache, as
root or as a user to whom /etc/subuid gives a range. A machine of QEMU without Xen then boots that
tree and copies it to the partitions of a disk, with the programs that a person would use. The rule:
a disk is made once, kept in the cache, and never booted; tests boot copies.
Source: mmdebstrap(1), mke2fs(8).
"""

from __future__ import annotations

import os
import shlex
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from lab import WAIT_SECONDS, LabError, packages
from lab.qemu import PROGRAM
from lab.root import Root, run
from tools import cache, process
from tools.progress import NULL, Display

FILES = Path(__file__).parent / "debian"
MIB = 1 << 20
TREE = 1536  # MiB of the file system that the installing machine boots
MEMORY = 1024  # MiB of that machine
LONG_SECONDS = 3 * WAIT_SECONDS  # for a boot with systemd, which is many steps
LINUX = 0x83  # type of a partition
# "?essential" is a pattern of apt's, for all packages that every system has.
BASE = (
    *("?essential", "apt", "systemd-sysv", "udev", "kmod", "procps", "linux-image-cloud-amd64"),
    *("usr-is-merged", "initramfs-tools", "zstd", "grub-pc", "e2fsprogs", "mount"),
    *("python3", "python3-yaml", "python3-zstandard", "kexec-tools"),
)
MODULES = ("xen-blkfront", "virtio_blk", "virtio_pci", "ext4")


@dataclass(frozen=True)
class Layout:
    """A Layout says what is on a disk; debian/install makes it.

    Attributes:
        packages: What is installed besides BASE.
        modules: What the initrd has besides MODULES.
        partitions: Begin and length of each, MiB.
    """

    packages: tuple[str, ...]
    modules: tuple[str, ...]
    partitions: tuple[tuple[int, int], ...]


# A new dump leaves 2 GiB free (keep_free). What is not written takes no room of the host.
LAYOUTS = {
    "ext4": Layout((), (), ((1, 8191),)),
    "lvm-xfs": Layout(("lvm2", "xfsprogs"), ("xfs", "dm-mod"), ((1, 255), (256, 7936))),
}


def disk(suite: str, layout: str, progress: Display = NULL) -> Path:
    """Return the raw disk of a suite and a layout, made unless it is in the cache.

    Raises:
        LabError: There is no such layout, or the disk cannot be made.
    """
    if layout not in LAYOUTS:
        raise LabError(f"layout {layout!r}: expected {' or '.join(LAYOUTS)}")
    wanted = LAYOUTS[layout]
    debs = packages.suite(suite, progress).debs((*BASE, *wanted.packages))
    sources = sorted((*FILES.iterdir(), Path(__file__)))
    key = cache.digest(layout, *(path.name for path in debs), *map(cache.file_digest, sources))

    def make(folder: Path) -> None:
        with (
            tempfile.TemporaryDirectory(prefix="lab-install-", dir=folder.parent) as name,
            progress.stage("install") as stage,
        ):
            scratch = Path(name)
            stage.note(f"{suite}, {layout}: packages")
            tree = _bootstrap(scratch, suite, wanted, debs, progress)
            stage.note(f"{suite}, {layout}: disk")
            _write_table(folder / "disk.img", wanted.partitions)
            _install(scratch, tree, folder / "disk.img", layout, progress)
            stage.note(f"{suite}, {layout}")

    kept = cache.stamped(cache.folder("lab", suite), f"installed-{layout}", key, make)
    return kept / "disk.img"


def copy(suite: str, layout: str, target: Path, progress: Display = NULL) -> None:
    """Copy the disk of a suite and a layout, for a guest that writes to it. Raises LabError."""
    source = disk(suite, layout, progress)
    command = ["cp", "--sparse=always", "--reflink=auto", str(source), str(target)]
    process.output(command, LabError)


def _bootstrap(
    scratch: Path, suite: str, wanted: Layout, debs: list[Path], progress: Display
) -> Path:
    """Have mmdebstrap unpack and configure the packages; returns the tree as a tar file."""
    _write_index(scratch / "repository", debs)
    extra = scratch / "extra"
    _put(extra / "etc/initramfs-tools/conf.d/lab", "MODULES=list\n")
    modules = (*MODULES, *wanted.modules)
    _put(extra / "etc/initramfs-tools/modules", "".join(f"{name}\n" for name in modules))
    _put(extra / "usr/local/sbin/lab-agent", (FILES / "lab-agent").read_text("utf-8"), 0o755)
    service = (FILES / "lab-agent.service").read_text("utf-8")
    _put(extra / "etc/systemd/system/lab-agent.service", service)
    _put(extra / "lab/install", (FILES / "install").read_text("utf-8"), 0o755)
    program = Root(packages.suite(suite, progress).unpack(["mmdebstrap"], dependencies=False))
    tree = scratch / "tree.tar"
    names = [name for name in (*BASE, *wanted.packages) if not name.startswith("?")]
    command = [
        *("perl", str(program.find("/usr/bin/mmdebstrap")), "--variant=apt", "--quiet"),
        f"--hook-dir={program.find('/usr/share/mmdebstrap/hooks/merged-usr')}",
        *("--aptopt=Acquire::Languages none", "--aptopt=APT::Install-Recommends false"),
        *("--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*"),
        *("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=force-confold"),
        f"--include={','.join(names)}",
        f"--essential-hook=copy-in {shlex.quote(str(extra / 'etc'))} /",
        f"--customize-hook=copy-in {shlex.quote(str(extra / 'usr'))} /",
        f"--customize-hook=copy-in {shlex.quote(str(extra / 'lab'))} /",
        f"--customize-hook={FILES / 'customize'}",
        *("", str(tree), f"deb [trusted=yes] copy://{scratch / 'repository'} ./"),
    ]
    # Its own mmtarfilter is looked for in PATH.
    path = f"{program.find('/usr/bin')}:{os.environ['PATH']}"
    process.output(command, LabError, cwd=scratch, environment={**os.environ, "PATH": path})
    return tree


def _write_index(folder: Path, debs: Iterable[Path]) -> None:
    """Make a repository of packages, as apt reads one."""
    folder.mkdir()
    stanzas = []
    for path in debs:
        (folder / path.name).symlink_to(path)
        fields = process.output(["dpkg-deb", "--field", str(path)], LabError).strip()
        size, digest = path.stat().st_size, cache.file_digest(path)
        stanzas.append(f"{fields}\nFilename: ./{path.name}\nSize: {size}\nSHA256: {digest}\n")
    (folder / "Packages").write_text("\n".join(stanzas), encoding="utf-8")


def _put(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)


def _write_table(path: Path, partitions: Iterable[tuple[int, int]]) -> None:
    """Write a disk with an MBR; `partitions` as Layout has them."""
    rows = [(begin * MIB // 512, length * MIB // 512) for begin, length in partitions]
    table = b"".join(
        struct.pack("<B3sB3sII", 0, bytes(3), LINUX, bytes(3), begin, length)
        for begin, length in rows
    )
    with path.open("wb") as stream:
        stream.write(bytes(440) + b"LABD\0\0" + table.ljust(64, b"\0") + b"\x55\xaa")
        stream.truncate(sum(rows[-1]) * 512)


def _install(scratch: Path, tree: Path, target: Path, layout: str, progress: Display) -> None:
    """Boot the tree in QEMU, without Xen; its init, debian/install, installs it on the disk."""
    source = scratch / "source.img"
    programs = packages.formatter(progress)
    done = run(
        programs, "/sbin/mke2fs", *("-q", "-t", "ext4", "-d", str(tree), str(source), f"{TREE}M")
    )
    if done.returncode:
        raise LabError(f"mke2fs: exit {done.returncode}\n{done.stdout}")
    with tarfile.open(tree) as archive:
        names = archive.getnames()
        for kind in ("vmlinuz", "initrd.img"):
            (name,) = (name for name in names if name.startswith(f"./boot/{kind}-"))
            content = archive.extractfile(name)
            assert content is not None
            with content, (scratch / kind).open("wb") as stream:
                shutil.copyfileobj(content, stream)
    words = "root=/dev/vda rw init=/lab/install console=ttyS0 quiet loglevel=3"
    drives = (f"if=virtio,format=raw,cache=unsafe,file={path}" for path in (source, target))
    command = [
        *("setpriv", "--pdeathsig", "KILL", PROGRAM, "-accel", "tcg", "-cpu", "qemu64,+rdrand"),
        *("-m", f"{MEMORY}M", "-nodefaults", "-no-reboot", "-display", "none", "-serial", "stdio"),
        *("-kernel", str(scratch / "vmlinuz"), "-initrd", str(scratch / "initrd.img")),
        *("-append", f"{words} random.trust_cpu=on lab_layout={layout}"),
        *(word for drive in drives for word in ("-drive", drive)),
    ]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=LONG_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise LabError(f"installing Debian: no end after {LONG_SECONDS} s") from None
    if "lab: installed" not in done.stdout.splitlines():
        raise LabError(f"installing Debian:\n{process.tail(done.stdout + done.stderr)}")
