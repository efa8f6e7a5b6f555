"""The backend on a real Xen: libxenevtchn and libxengnttab, called without a compiler.

Used by host.py. Each connection has its own handles, so that none waits for a lock of another, and
its worker is a thread that sleeps in a read of its event channel, or in poll() where it waits for
more than events. The rules: an event is taken and its port unmasked before the ring is read; the
libraries' messages are switched off, since a guest chooses how many refusals there are.
Source: Xen tools/include/xenevtchn.h, xengnttab.h, xentoollog.h (libraries' major version 1);
Linux include/uapi/xen/evtchn.h (what is read are ports, which are unmasked by writing them).
"""

from __future__ import annotations

import errno
import logging
import mmap
import os
import select
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import cffi

from xenpv.abi import DOMID_SELF, PAGE_SIZE

from .aio import Aio
from .ports import Refused, Stalled, Wait, Worker
from .timers import Timers

log = logging.getLogger(__name__)

CDEF = """
extern void *stderr;
void *xtl_createlogger_stdiostream(void *stream, int min_level, unsigned flags);
void *xenevtchn_open(void *logger, unsigned flags);
int xenevtchn_close(void *handle);
int xenevtchn_fd(void *handle);
int xenevtchn_notify(void *handle, uint32_t port);
int xenevtchn_bind_interdomain(void *handle, uint32_t domid, uint32_t remote_port);
int xenevtchn_bind_unbound_port(void *handle, uint32_t domid);
void *xengnttab_open(void *logger, unsigned flags);
int xengnttab_close(void *handle);
void *xengnttab_map_domain_grant_refs(
    void *handle, uint32_t count, uint32_t domid, uint32_t *refs, int prot);
int xengnttab_unmap(void *handle, void *start, uint32_t count);
int eventfd(unsigned int value, int flags);
"""
XTL_CRITICAL = 9
RETRY_MS = 10
EVENTS = 64  # bytes; there are two ports of 4
BELL = 8  # bytes of an eventfd
SHORT = (errno.ENOMEM, errno.ENOSPC, errno.EAGAIN, errno.EMFILE, errno.ENFILE)


class Libraries:
    """Xen's libraries. Raises OSError where they are not installed."""

    def __init__(self) -> None:
        self.ffi: Any = cffi.FFI()
        self.ffi.cdef(CDEF)
        self.evtchn: Any = self.ffi.dlopen("libxenevtchn.so.1")
        self.gnttab: Any = self.ffi.dlopen("libxengnttab.so.1")
        toollog: Any = self.ffi.dlopen("libxentoollog.so.1")
        self.libc: Any = self.ffi.dlopen(None)
        self.logger = toollog.xtl_createlogger_stdiostream(self.libc.stderr, XTL_CRITICAL, 0)

    def refused(self, what: str) -> Refused | Stalled:
        """Return what to raise for the last call's errno."""
        number = self.ffi.errno
        kind = Stalled if number in SHORT else Refused
        return kind(f"{what}: {os.strerror(number)}")

    def handle(self, opened: Any, what: str) -> Any:
        """Return a handle that was opened. Raises Refused, Stalled."""
        if opened == self.ffi.NULL:
            raise self.refused(what)
        return opened


class MappedFrames:
    """Frames of a guest, mapped one behind the other."""

    def __init__(self, grants: Grants, start: Any, count: int, writable: bool) -> None:
        self._grants = grants
        self._start = start
        self._count = count
        view = memoryview(grants.libraries.ffi.buffer(start, count * PAGE_SIZE))
        self._view = view if writable else view.toreadonly()

    def slices(self, start: int, end: int) -> list[memoryview]:
        """Return the bytes from start to end, always as one piece."""
        return [self._view[start:end]]

    def unmap(self) -> None:
        """Unmap the frames."""
        self._view.release()
        self._grants.libraries.gnttab.xengnttab_unmap(self._grants.handle, self._start, self._count)


class Grants:
    """One guest's grants, through a handle of their own."""

    def __init__(self, libraries: Libraries, domid: int) -> None:
        self.libraries = libraries
        self._domid = domid
        opened = libraries.gnttab.xengnttab_open(libraries.logger, 0)
        self.handle = libraries.handle(opened, "/dev/xen/gntdev")

    def map(self, refs: Sequence[int], writable: bool) -> MappedFrames:
        """Map all of the grants at one address range. Raises Refused, Stalled."""
        protection = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
        array = self.libraries.ffi.new("uint32_t[]", list(refs))
        start = self.libraries.gnttab.xengnttab_map_domain_grant_refs(
            self.handle, len(refs), self._domid, array, protection
        )
        if start == self.libraries.ffi.NULL:
            some = ", ".join(map(str, refs[:8])) + (" ..." if len(refs) > 8 else "")
            raise self.libraries.refused(f"grant {some}")
        return MappedFrames(self, start, len(refs), writable)

    def close(self) -> None:
        """Close the handle."""
        self.libraries.gnttab.xengnttab_close(self.handle)


class Channel:
    """Our end of an event channel, through a handle of its own.

    fd: readable when there are events; bell: an eventfd, which I/O that ends rings.
    """

    def __init__(self, libraries: Libraries, domid: int, port: int) -> None:
        self._libraries = libraries
        self._library = libraries.evtchn
        opened = self._library.xenevtchn_open(libraries.logger, 0)
        self._handle = libraries.handle(opened, "/dev/xen/evtchn")
        self._closing = threading.Lock()
        self._is_open = True
        # These are flags of eventfd(2), too.
        self.bell = int(libraries.libc.eventfd(0, os.O_CLOEXEC | os.O_NONBLOCK))
        if self.bell < 0:
            error = libraries.refused("eventfd")
            self._library.xenevtchn_close(self._handle)
            raise error
        self._port = self._bind(domid, port)
        # Two ends of a channel to ourselves, for wake().
        near = self._bound(self._library.xenevtchn_bind_unbound_port(self._handle, DOMID_SELF), 0)
        self._waker = self._bind(DOMID_SELF, near)
        self.fd = int(self._library.xenevtchn_fd(self._handle))

    def _bind(self, domid: int, port: int) -> int:
        bound = self._library.xenevtchn_bind_interdomain(self._handle, domid, port)
        return self._bound(bound, port)

    def _bound(self, bound: int, port: int) -> int:
        if bound < 0:
            error = self._libraries.refused(f"event channel {port}")
            self.close()
            raise error
        return bound

    def take(self) -> None:
        """Take events; wait if there is none."""
        os.write(self.fd, os.read(self.fd, EVENTS))

    def notify(self) -> None:
        """Send the guest an event."""
        self._library.xenevtchn_notify(self._handle, self._port)

    def wake(self) -> None:
        """Send an event to ourselves, unless we are closed. Any thread may call it."""
        with self._closing:
            if self._is_open:
                self._library.xenevtchn_notify(self._handle, self._waker)

    def close(self) -> None:
        """Unbind the channel."""
        with self._closing:
            self._is_open = False
            os.close(self.bell)
            self._library.xenevtchn_close(self._handle)


class Xen:
    """The interface ports.Xen on a real Xen. threads: of the workers."""

    def __init__(self) -> None:
        self._libraries = Libraries()
        self._timers = Timers()
        self.threads: set[threading.Thread] = set()

    def grants(self, domid: int) -> Grants:
        """Raises Refused, Stalled."""
        return Grants(self._libraries, domid)

    def bind(self, domid: int, port: int) -> Channel:
        """Bind a guest's event channel. Raises Refused, Stalled."""
        return Channel(self._libraries, domid, port)

    def queue(self, direct: int, channel: Channel) -> Aio:
        """Make a queue of I/O for a descriptor. Raises Stalled."""
        return Aio(direct, channel.bell)

    def run(self, worker: Worker, channel: Channel) -> None:
        """Give a worker its turns in a thread of its own. Raises Stalled."""
        worker.wake = channel.wake
        # A daemon, or a disk that hangs for ever would keep the process from ending.
        thread = threading.Thread(
            target=self._serve, args=(worker, channel), name=worker.name, daemon=True
        )
        self.threads.add(thread)
        try:
            thread.start()
        except RuntimeError as error:
            self.threads.discard(thread)
            raise Stalled(f"a worker's thread: {error}") from None

    def later(self, delay: int, call: Callable[[], None]) -> None:
        """Call a function once, `delay` ns from now."""
        self._timers.later(delay, call)

    def _serve(self, worker: Worker, channel: Channel) -> None:
        poll = select.poll()
        poll.register(channel.fd, select.POLLIN)
        poll.register(channel.bell, select.POLLIN)
        try:
            while (wait := self._turn(worker)) is not Wait.END:
                if wait is Wait.EVENT:
                    channel.take()
                elif wait is Wait.NOTHING:
                    time.sleep(0)
                else:
                    for fd, _ in poll.poll(RETRY_MS if wait is Wait.LATER else None):
                        if fd == channel.fd:
                            channel.take()
                        else:
                            os.read(fd, BELL)
        finally:
            self.threads.discard(threading.current_thread())

    def _turn(self, worker: Worker) -> Wait:
        """Do a step; a worker that raises something unforeseen ends its connection in the next."""
        try:
            return worker.step()
        except Exception as error:
            log.exception("%s", worker.name)
            worker.fail(f"{type(error).__name__}: {error}")
            return Wait.LATER
