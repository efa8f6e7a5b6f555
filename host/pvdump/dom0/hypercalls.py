"""The hypercalls of pvdumpd, on /dev/xen/privcmd.

Used by verbs.py alone, in the process of root's. libxenctrl has no stable interface, and the
structures here have had one layout since Xen 4.13. The rule: Xen checks the version of the domctl
interface, and this file names the versions that it knows; it asks nothing of another one.
Source: xen/include/public/domctl.h, event_channel.h, hvm/hvm_op.h, hvm/params.h, version.h; Linux
include/uapi/xen/privcmd.h, drivers/xen/privcmd-buf.c.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import struct
import threading
import uuid
from typing import NamedTuple

from xenpv import abi

PRIVCMD = "/dev/xen/privcmd"
BUFFER = "/dev/xen/hypercall"  # memory that Xen can always read and write
IOCTL_PRIVCMD_HYPERCALL = 48 << 16 | ord("P") << 8  # _IOC(_IOC_NONE, 'P', 0, 48)

HYPERVISOR_domctl = 36
XEN_DOMCTL_pausedomain = 3
XEN_DOMCTL_unpausedomain = 4
XEN_DOMCTL_getdomaininfo = 5
XEN_DOMCTL_soft_reset = 79
XEN_DOMINF_dying = 1 << 0
XEN_DOMINF_hvm_guest = 1 << 1
XEN_DOMINF_shutdown = 1 << 2
XEN_DOMINF_paused = 1 << 3
XEN_DOMINF_shutdownshift = 16
XEN_DOMINF_shutdownmask = 255

# The version of the domctl interface of each version of Xen.
INTERFACES = {
    (4, 13): 0x12,
    (4, 14): 0x12,
    (4, 15): 0x13,
    (4, 16): 0x14,
    (4, 17): 0x15,
    (4, 18): 0x16,
    (4, 19): 0x17,
    (4, 20): 0x17,
    (4, 21): 0x17,
    (4, 22): 0x18,
}
# struct xen_domctl: cmd, interface_version, domain, then a union; here the first fields of
# struct xen_domctl_getdomaininfo: domain, pad1, flags, seven numbers of which the last is cpu_time,
# nr_online_vcpus, max_vcpu_id, ssidref, handle.
HEAD = struct.Struct("<IIH6x")
INFO = struct.Struct("<HHI7QIII16s")
ALLOC_UNBOUND = struct.Struct(abi.EVTCHN_ALLOC_UNBOUND)  # dom, remote_dom, port
HVM_PARAM = struct.Struct(abi.XEN_HVM_PARAM)  # domid, pad, index, value


class HypercallError(Exception):
    """Xen refuses a hypercall, or cannot be asked; the message says which and why."""


class Info(NamedTuple):
    """What Xen says of a domain.

    Attributes:
        domid: its number.
        uuid: its handle, as libxl writes it.
        dying: it is being destroyed.
        hvm: its type is HVM or PVH.
        reason: SHUTDOWN_*, why it is down; None if it is not.
        paused: the toolstack has paused it.
    """

    domid: int
    uuid: str
    dying: bool
    hvm: bool
    reason: int | None
    paused: bool


def interface(version: tuple[int, int]) -> int:
    """Return the version of the domctl interface of a version of Xen. Raises HypercallError."""
    known = INTERFACES.get(version)
    if known is None:
        raise HypercallError(
            f"Xen {_shown(version)}: its domctl interface is not known here, which knows those of "
            f"Xen {_shown(min(INTERFACES))} to {_shown(max(INTERFACES))}; install a newer pvdump"
        )
    return known


def parse_info(data: bytes) -> Info:
    """Read the union of a domctl that was answered with struct xen_domctl_getdomaininfo."""
    domid, _, flags, *_, handle = INFO.unpack_from(data)
    down = flags & XEN_DOMINF_shutdown
    return Info(
        domid=domid,
        uuid=str(uuid.UUID(bytes=handle)),
        dying=bool(flags & XEN_DOMINF_dying),
        hvm=bool(flags & XEN_DOMINF_hvm_guest),
        reason=flags >> XEN_DOMINF_shutdownshift & XEN_DOMINF_shutdownmask if down else None,
        paused=bool(flags & XEN_DOMINF_paused),
    )


class Hypercalls:
    """The hypercalls, for any number of threads.

    Raises HypercallError where this is no dom0, or its Xen is of an unknown version.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # of the buffer
        try:
            self._fd = os.open(PRIVCMD, os.O_RDWR | os.O_CLOEXEC)
            buffer = os.open(BUFFER, os.O_RDWR | os.O_CLOEXEC)
            try:
                self._buffer = mmap.mmap(buffer, mmap.PAGESIZE)
            finally:
                os.close(buffer)
        except OSError as error:
            raise HypercallError(
                f"{error.filename or BUFFER}: {error.strerror}; pvdumpd runs as root in dom0, with "
                "the modules xen-privcmd and xen-evtchn"
            ) from None
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._buffer))
        number = self._call("the version of Xen", abi.HYPERVISOR_xen_version, abi.XENVER_version, 0)
        self.version = (number >> 16, number & 0xFFFF)
        self._interface = interface(self.version)

    def info(self, domid: int) -> Info | None:
        """Return what Xen says of a domain; None if there is none of this number."""
        try:
            info = parse_info(self._domctl("state", XEN_DOMCTL_getdomaininfo, domid))
        except HypercallError as error:
            if isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ESRCH:
                return None
            raise
        # Some versions answer with the next domain.
        return info if info.domid == domid else None

    def pause(self, domid: int) -> None:
        """Pause a domain, once more for each call."""
        self._domctl("pause", XEN_DOMCTL_pausedomain, domid)

    def unpause(self, domid: int) -> None:
        """Take back one pause."""
        self._domctl("unpause", XEN_DOMCTL_unpausedomain, domid)

    def soft_reset(self, domid: int) -> None:
        """Reset a domain that is down: its event channels end, and it is no longer down."""
        self._domctl("soft reset", XEN_DOMCTL_soft_reset, domid)

    def alloc_unbound(self, domid: int) -> int:
        """Make an event channel of a domain's that dom0 may bind. Returns its port."""
        data = ALLOC_UNBOUND.pack(domid, 0, 0)
        what = f"domain {domid}: a new event channel"
        data = self._with(what, data, abi.HYPERVISOR_event_channel_op, abi.EVTCHNOP_alloc_unbound)
        port: int = ALLOC_UNBOUND.unpack_from(data)[2]
        return port

    def get_param(self, domid: int, index: int) -> int:
        """Return an HVM parameter."""
        data = HVM_PARAM.pack(domid, 0, index, 0)
        data = self._with(
            f"domain {domid}: its parameter {index}",
            data,
            abi.HYPERVISOR_hvm_op,
            abi.HVMOP_get_param,
        )
        value: int = HVM_PARAM.unpack_from(data)[3]
        return value

    def set_param(self, domid: int, index: int, value: int) -> None:
        """Set an HVM parameter."""
        data = HVM_PARAM.pack(domid, 0, index, value)
        self._with(
            f"domain {domid}: set its parameter {index}",
            data,
            abi.HYPERVISOR_hvm_op,
            abi.HVMOP_set_param,
        )

    def _domctl(self, what: str, command: int, domid: int) -> bytes:
        """Do a domctl without arguments. Returns the union."""
        head = HEAD.pack(command, self._interface, domid)
        return self._with(f"domain {domid}: {what}", head, HYPERVISOR_domctl)[HEAD.size :]

    def _with(self, what: str, data: bytes, number: int, *arguments: int) -> bytes:
        """Do a hypercall whose last argument is a structure. Returns what Xen made of it."""
        with self._lock:
            self._buffer[:] = data.ljust(mmap.PAGESIZE, b"\0")
            self._call(what, number, *arguments, self._address)
            return self._buffer[:]

    def _call(self, what: str, number: int, *arguments: int) -> int:
        """Do a hypercall. Raises HypercallError."""
        call = bytearray(struct.pack("<6Q", number, *arguments, *[0] * (5 - len(arguments))))
        try:
            return fcntl.ioctl(self._fd, IOCTL_PRIVCMD_HYPERCALL, call, True)
        except OSError as error:
            raise HypercallError(f"{what}: {error.strerror}") from error


def _shown(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
