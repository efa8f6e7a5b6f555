"""The Debian packages that the lab is made of, unpacked.

Used by dom0, linux, program, readers, browser and symbols. The rule: only package names without a
version are written here (meta packages where there are some), so that a point release of Debian
needs no change.
"""

from __future__ import annotations

from lab import LabError
from lab.root import Root
from tools.apt import Suite
from tools.progress import NULL, Display

SUITES = ("bookworm", "trixie")
# Of which there are guests' kernels besides.
GUESTS = ("bullseye", "trixie-backports")
DOM0 = ("xen-system-amd64", "qemu-system-xen", "seabios", "busybox-static", "linux-image-amd64")
KERNEL = "linux-image-cloud-amd64"
GUEST = ("kexec-tools", "busybox-static", "grub-pc-bin", "grub-common")
GRUB_PVH = ("grub-xen-host",)
PROGRAMS = ("fio", "e2fsprogs", "xfsprogs", "lvm2")
DEVELOPMENT = ("libxen-dev", "libc6-dev", "linux-libc-dev")
PYTHON = ("python3-cffi", "libxenevtchn1", "libxengnttab1", "libxentoollog1")
NBD = ("nbdkit",)
FORMATTER = ("e2fsprogs", "libarchive13t64")  # of trixie, whose mke2fs reads tar files
BROWSER = ("chromium-headless-shell", "fonts-dejavu-core")
# What makes disks: partitions, file systems, and their content without mounting them.
DISKS = ("dosfstools", "e2fsprogs", "fdisk", "gdisk", "mtools", "xfsprogs")
# grub-mkconfig and what its scripts call; ukify, and what it puts kernels behind.
GRUB_CONFIG = (
    *("grub-common", "grub2-common", "grub-pc", "dash", "coreutils", "sed", "gettext-base"),
    *("mawk", "grep", "findutils", "util-linux", "bash"),
)
UKIFY = ("systemd-ukify",)
UKI_STUB = ("systemd-boot-efi",)
TERMINAL = ("tmux",)
SIGNER = ("minisign",)
KERNEL_INSTALL = ("systemd",)
READERS = ("makedumpfile", "crash")  # of trixie; those of bookworm misread recent kernels
# With the Python that it is for.
KDUMPFILE = ("python3-libkdumpfile", "python3-minimal", "libpython3-stdlib")


def suite(name: str, progress: Display = NULL) -> Suite:
    """Return the Debian release `name`. Raises LabError unless it is one of SUITES."""
    if name not in SUITES:
        raise LabError(f"suite {name!r}: the lab knows {', '.join(SUITES)}")
    return Suite(name, progress)


def dom0(name: str, progress: Display = NULL) -> Root:
    """Unpack Xen, dom0's kernel, toolstack and device model."""
    return Root(suite(name, progress).unpack(DOM0))


def guest(name: str, progress: Display = NULL) -> Root:
    """Unpack the Linux guests' kernel, kexec, busybox and GRUB."""
    return Root(guests(name, progress).unpack(guest_names(name)))


def guest_names(name: str) -> tuple[str, ...]:
    """Return the packages of guest()."""
    # That of bullseye's security updates is no longer there.
    return (f"{KERNEL}/bullseye" if name == "bullseye" else KERNEL, *GUEST)


def guests(name: str, progress: Display = NULL) -> Suite:
    """Return a release that guests may be of. Raises LabError unless there is such a one."""
    return Suite(name, progress) if name in GUESTS else suite(name, progress)


def grub_pvh(name: str, progress: Display = NULL) -> Root:
    """Unpack GRUB in the form of a PVH guest's kernel."""
    return Root(suite(name, progress).unpack(GRUB_PVH, dependencies=False))


def programs(name: str, progress: Display = NULL) -> Root:
    """Unpack the packages that a guest's `programs` are taken from."""
    return Root(suite(name, progress).unpack(PROGRAMS))


def development(name: str, progress: Display = NULL) -> Root:
    """Unpack the headers and static libraries of Xen's tools and of C."""
    return Root(suite(name, progress).unpack(DEVELOPMENT, dependencies=False))


def python(name: str, progress: Display = NULL) -> Root:
    """Unpack Python with cffi, and the Xen libraries that pvdump loads."""
    return Root(suite(name, progress).unpack(PYTHON))


def nbd(name: str, progress: Display = NULL) -> Root:
    """Unpack nbdkit, an NBD server."""
    return Root(suite(name, progress).unpack(NBD))


def formatter(progress: Display = NULL) -> Root:
    """Unpack mke2fs, and the library that it reads tar files with."""
    return Root(Suite("trixie", progress).unpack(FORMATTER))


def disks(progress: Display = NULL) -> Root:
    """Unpack the programs that make partitions and file systems."""
    return Root(Suite("trixie", progress).unpack(DISKS))


def grub_config(progress: Display = NULL) -> Root:
    """Unpack grub-mkconfig and the programs that its scripts call."""
    return Root(Suite("trixie", progress).unpack(GRUB_CONFIG))


def ukify(progress: Display = NULL) -> Root:
    """Unpack ukify, which makes unified kernel images, and its Python modules."""
    return Root(Suite("trixie", progress).unpack(UKIFY))


def uki_stub(progress: Display = NULL) -> Root:
    """Unpack the EFI program that unified kernel images begin with."""
    return Root(Suite("trixie", progress).unpack(UKI_STUB, dependencies=False))


def terminal(progress: Display = NULL) -> Root:
    """Unpack tmux, a terminal whose screen a program can read."""
    return Root(suite("bookworm", progress).unpack(TERMINAL))


def signer(progress: Display = NULL) -> Root:
    """Unpack minisign."""
    return Root(Suite("trixie", progress).unpack(SIGNER))


def kernel_install(progress: Display = NULL) -> Root:
    """Unpack kernel-install and its plugins."""
    return Root(Suite("trixie", progress).unpack(KERNEL_INSTALL))


def readers(progress: Display = NULL) -> Root:
    """Unpack makedumpfile and crash."""
    return Root(Suite("trixie", progress).unpack(READERS))


def kdumpfile(progress: Display = NULL) -> Root:
    """Unpack libkdumpfile's Python module, and Python."""
    return Root(Suite("trixie", progress).unpack(KDUMPFILE))


def browser(progress: Display = NULL) -> Root:
    """Unpack Chromium without a window, and a font."""
    return Root(suite("bookworm", progress).unpack(BROWSER))
