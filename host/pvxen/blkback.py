"""The backend on the embedded Xen, for tests: deterministic, one step at a time.

Used by the embedded machine for its domains' disks. The steps of a worker or a device are steps of
the machine's clock, in the order in which they were asked for or, with a seed, in one that is
drawn; a worker that waits for memory or the disk gets its next turn RETRY later.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from pvdump.blkback.attach import number_of
from pvdump.blkback.device import Device
from pvdump.blkback.paths import TYPE, backend_path
from pvdump.blkback.ports import Refused, Wait, Worker
from pvdump.blkback.sink import Sink
from pvdump.blkback.transfer import Transfer
from pvdump.service.complaints import Complaints
from pvdump.xenstored.domain import StoreError
from pvdump.xenstored.server import Xenstored
from xenpv import abi
from xenpv.abi import PAGE_SIZE

from . import gnttab
from .evtchn import XenRefuses
from .hypervisor import DOM0

if TYPE_CHECKING:
    from .domain import EmbeddedDomain
    from .toolstack import Toolstack

RETRY = 10_000_000  # ns
Make = Callable[..., Device]


class MappedFrames:
    """Frames of a guest's memory; those that are neighbours there are one piece.

    held: what is mapped by the same process.
    """

    def __init__(self, mappings: list[gnttab.Mapping], held: set[MappedFrames]) -> None:
        self._mappings = mappings
        self._held = held
        held.add(self)

    def slices(self, start: int, end: int) -> list[memoryview]:
        """Return the bytes from start to end; frames that lie side by side are one piece."""
        found = []
        while start < end:
            first, at = divmod(start, PAGE_SIZE)
            last = first
            while (last + 1) * PAGE_SIZE < end and self._follows(last):
                last += 1
            stop = min(end, (last + 1) * PAGE_SIZE)
            found.append(self._run(first, last)[at : at + stop - start])
            start = stop
        return found

    def _follows(self, index: int) -> bool:
        here, behind = self._mappings[index], self._mappings[index + 1]
        ram = here.table.machine.ram
        return here.view.obj is ram is behind.view.obj and behind.addr == here.addr + PAGE_SIZE

    def _run(self, first: int, last: int) -> memoryview:
        if first == last:
            return self._mappings[first].view
        here = self._mappings[first]
        whole = memoryview(here.table.machine.ram)
        view = whole[here.addr : here.addr + (last - first + 1) * PAGE_SIZE]
        return view.toreadonly() if here.readonly else view

    def unmap(self) -> None:
        """Unmap the frames."""
        for mapping in self._mappings:
            mapping.unmap()
        self._mappings = []
        self._held.discard(self)


class Grants:
    """One domain's grants. held: what is mapped by the same process."""

    def __init__(self, domain: EmbeddedDomain, held: set[MappedFrames]) -> None:
        self._table = domain.machine.gnttab
        self._held = held

    def map(self, refs: Sequence[int], writable: bool) -> MappedFrames:
        """Map all of the grants or none. Raises Refused."""
        mappings: list[gnttab.Mapping] = []
        try:
            for ref in refs:
                mappings.append(self._table.map(ref, DOM0, not writable))
        except gnttab.GrantRefused as error:
            MappedFrames(mappings, self._held).unmap()
            raise Refused(str(error)) from None
        return MappedFrames(mappings, self._held)

    def close(self) -> None:
        """Do nothing."""


class Channel:
    """Domain 0's end of an event channel. held: the channels of the same process."""

    def __init__(self, xen: Toolstack, port: int, held: set[Channel]) -> None:
        self._xen = xen
        self.port = port
        self._held = held
        held.add(self)
        self.wake: Callable[[], None] = lambda: None

    def notify(self) -> None:
        """Send the guest an event."""
        self._xen.evtchn.send(DOM0, self.port)

    def close(self) -> None:
        """Unbind the channel."""
        self._xen.evtchn.close(DOM0, self.port)
        self._held.discard(self)


class Flights:
    """Transfers that end one by one, in the order of the clock's steps."""

    depth = 8

    def __init__(self, back: BlkBack, channel: Channel) -> None:
        self._back = back
        self._channel = channel
        self._ended: list[Transfer] = []

    def begin(self, transfers: Sequence[Transfer]) -> int:
        """Begin all transfers; each ends in a turn of the clock."""
        for transfer in transfers:
            self._back.xen.clock.soon(functools.partial(self._end, transfer))
        return len(transfers)

    def vector(self, memory: memoryview) -> bytes:
        """Return a placeholder; no kernel reads it."""
        return b"any name"

    def _end(self, transfer: Transfer) -> None:
        if self._back.is_dead:
            return
        transfer.do()
        self._ended.append(transfer)
        self._channel.wake()

    def over(self) -> list[Transfer]:
        """Return the transfers that ended since the last call."""
        found, self._ended = self._ended, []
        return found

    def close(self) -> None:
        """Do nothing."""


class BackendStore:
    """The store, as domain 0 uses it."""

    def __init__(self, store: Xenstored) -> None:
        self._store = store

    def read(self, path: str) -> str | None:
        """Return a node's value, or None if there is no such node."""
        try:
            return self._store.read(path)
        except StoreError:
            return None

    def remove(self, path: str) -> None:
        """Remove a node and all below it, if it is there."""
        with contextlib.suppress(StoreError):
            self._store.rm(path)

    def update(self, device: str, values: Mapping[str, str]) -> bool:
        """Write all nodes, or none if the device's `frontend` node is gone."""
        if not self._store.exists(f"{device}/frontend"):
            return False
        for path, value in values.items():
            self._store.write(path, value)
        return True


class BlkBack:
    """The backend's process in an embedded domain 0.

    devices: by the path of the backend's nodes; log: the lines that it wrote; is_dead: after die().
    """

    def __init__(self, xen: Toolstack) -> None:
        self.xen = xen
        self.store = BackendStore(xen.store)
        self.devices: dict[str, Device] = {}
        self.log: list[str] = []
        self._complaints = Complaints(lambda: xen.clock.now, self.log.append)
        self._steps: dict[str, Callable[[], None]] = {}
        self._frames: set[MappedFrames] = set()
        self._channels: set[Channel] = set()
        self.is_dead = False

    # The interface ports.Xen.

    def grants(self, domid: int) -> Grants:
        """Return a guest's grants. Raises Refused."""
        if domid not in self.xen.domains:
            raise Refused(f"domain {domid} is not there")
        return Grants(self.xen.domains[domid], self._frames)

    def bind(self, domid: int, port: int) -> Channel:
        """Bind a guest's event channel. Raises Refused."""
        try:
            ours = self.xen.evtchn.bind_interdomain(DOM0, domid, port)
        except XenRefuses as error:
            raise Refused(f"event channel {port}: errno {error.errno}") from None
        return Channel(self.xen, ours, self._channels)

    def queue(self, direct: int, channel: Channel) -> Flights:
        """Return a queue of transfers that end in later turns."""
        return Flights(self, channel)

    def run(self, worker: Worker, channel: Channel) -> None:
        """Give a worker its turns on the clock until it waits for the end."""
        clock = self.xen.clock

        def turn() -> None:
            wait = Wait.END if self.is_dead else worker.step()
            if wait is Wait.NOTHING:
                clock.soon(turn)
            elif wait is Wait.LATER:
                clock.after(RETRY, wake)

        def wake() -> None:
            clock.soon(turn)

        worker.wake = channel.wake = wake
        self.xen.evtchn.on(DOM0, channel.port, wake)
        wake()

    def later(self, delay: int, call: Callable[[], None]) -> None:
        """Call a function once, `delay` ns from now."""
        self.xen.clock.after(delay, call)

    # Disks.

    def attach(
        self,
        domain: EmbeddedDomain,
        name: str,
        sink: Sink,
        mode: str = "w",
        make: Make = Device,
    ) -> Device:
        """Give a domain a disk, as a toolstack does. name: such as "xvdb"; make: its Device."""
        number = number_of(name)
        path, front = backend_path(domain.domid, number), f"{domain.home}/device/vbd/{number}"
        store, domid = self.xen.store, domain.domid
        store.write(front, "", f"n{domid} r0")
        store.write(path, "", f"n0 r{domid}")
        for key, value in (
            ("backend", path),
            ("backend-id", DOM0),
            ("state", abi.XenbusStateInitialising),
            ("virtual-device", number),
            ("device-type", "disk"),
        ):
            store.write(f"{front}/{key}", value, f"n{domid} r0")
        for key, value in (
            ("frontend", front),
            ("frontend-id", domid),
            ("online", 1),
            ("mode", mode),
            ("params", "a test's"),
            ("state", abi.XenbusStateInitialising),
        ):
            store.write(f"{path}/{key}", value)
        return self.serve(domid, number, sink, make)

    def serve(self, domid: int, number: int, sink: Sink, make: Make = Device) -> Device:
        """Take up a disk whose nodes are there."""
        path = backend_path(domid, number)

        def look() -> None:
            self.xen.clock.soon(step)

        def step() -> None:
            if self.devices.get(path) is device and not device.step():
                self._forget(path)

        def complain(text: str) -> None:
            self._complaints.add(path, f"{TYPE} {device.name}: {text}")

        device = make(
            domid, number, self, self.store, complain, look, lambda params, readonly, shared: sink
        )
        self.devices[path] = device
        self._steps[path] = look
        self.xen.store.watch(f"{device.front}/state", look)
        self.xen.store.watch(path, look)
        look()
        return device

    def close(self, device: Device) -> None:
        """Let go of a device at once, whatever its worker is doing; its nodes stay."""
        if device.path in self.devices:
            self._forget(device.path)
        if not device.close():
            assert device.instance is not None
            device.instance.step()
            device.close()

    def _forget(self, path: str) -> None:
        device, look = self.devices.pop(path), self._steps.pop(path)
        self.xen.store.unwatch(f"{device.front}/state", look)
        self.xen.store.unwatch(path, look)

    def die(self) -> None:
        """End as a killed process does: Xen's drivers give up all that was held."""
        self.is_dead = True
        for path in list(self.devices):
            self._forget(path)
        for frames in list(self._frames):
            frames.unmap()
        for channel in list(self._channels):
            channel.close()

    def detach(self, device: Device) -> None:
        """Remove a disk's nodes on both sides, as `xl destroy` and a forced detach do."""
        self.store.remove(device.path)
        self.store.remove(device.front)
