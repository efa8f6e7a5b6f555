"""Which Debian packages the lab is made of, unpacked.

Used by dom0, linux, program, readers and symbols. The rule: only package names without a version
are written here (meta packages where there are some), so that a point release of Debian needs no
change.
"""

from __future__ import annotations

from lab import LabError
from lab.root import Root
from tools.apt import Suite
from tools.progress import NULL, Display

SUITES = ("bookworm", "trixie")
DOM0 = ("xen-system-amd64", "qemu-system-xen", "seabios", "busybox-static", "linux-image-amd64")
GUEST = ("linux-image-cloud-amd64", "kexec-tools", "busybox-static", "grub-pc-bin", "grub-common")
GRUB_PVH = ("grub-xen-host",)
PROGRAMS = ("fio", "e2fsprogs")
DEVELOPMENT = ("libxen-dev", "libc6-dev", "linux-libc-dev")
PYTHON = ("python3-cffi", "libxenevtchn1", "libxengnttab1", "libxentoollog1")
NBD = ("nbdkit",)
READERS = ("makedumpfile", "crash")  # of trixie: bookworm's misread today's kernels


def suite(name: str, progress: Display = NULL) -> Suite:
    """The Debian release `name`, which must be one the lab was tried with."""
    if name not in SUITES:
        raise LabError(f"suite {name!r}: the lab knows {', '.join(SUITES)}")
    return Suite(name, progress)


def dom0(name: str, progress: Display = NULL) -> Root:
    """Xen, dom0's kernel, toolstack and device model."""
    return Root(suite(name, progress).unpack(DOM0))


def guest(name: str, progress: Display = NULL) -> Root:
    """The Linux guests' kernel and kexec."""
    return Root(suite(name, progress).unpack(GUEST))


def grub_pvh(name: str, progress: Display = NULL) -> Root:
    """GRUB as the kernel of a PVH guest."""
    return Root(suite(name, progress).unpack(GRUB_PVH, dependencies=False))


def programs(name: str, progress: Display = NULL) -> Root:
    """What a Linux guest can have besides: its `programs`."""
    return Root(suite(name, progress).unpack(PROGRAMS))


def development(name: str, progress: Display = NULL) -> Root:
    """Headers and static libraries of Xen's tools and of C."""
    return Root(suite(name, progress).unpack(DEVELOPMENT, dependencies=False))


def python(name: str, progress: Display = NULL) -> Root:
    """Python with cffi, and Xen's libraries for it."""
    return Root(suite(name, progress).unpack(PYTHON))


def nbd(name: str, progress: Display = NULL) -> Root:
    """An NBD server."""
    return Root(suite(name, progress).unpack(NBD))


def readers(progress: Display = NULL) -> Root:
    """makedumpfile and crash."""
    return Root(Suite("trixie", progress).unpack(READERS))
