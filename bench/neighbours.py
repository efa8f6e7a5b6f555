"""`./build.py bench neighbours`: what fifteen guests' disks lose by one hostile guest.

Sixteen workers of our backend in one process, as in dom0, each with a front end in a process of its
own on shared memory. Rounds alternate: the sixteenth front end behaves; it corrupts its ring as
soon as it is connected, in a loop; its disk stalls. A line gives the median of the fifteen others'
requests a second beside that of the rounds in which all behave.
"""

from __future__ import annotations

import json
import mmap
import os
import statistics
import struct
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pvdump.blkback import dom0, ports
from pvdump.blkback.frames import Pool
from pvdump.blkback.instance import Connection, Counts, Instance
from pvdump.blkback.request import Geometry
from pvdump.blkback.ringmemory import RingMemory
from pvdump.blkback.sink import File
from pvdump.watches.complaints import Complaints
from tools.progress import Display
from xenpv import abi
from xenpv.blkif import SEGMENT, X86_64
from xenpv.blkring import BackRing, FrontRing

GUESTS = 16
PAGE = 4096
PAGES = 40
SIZE = 16 << 20
ROUND_SECONDS = 1.0
ROUNDS = 7
BEHAVES, CORRUPTS, STALLS = "behaves", "corrupts its ring in a loop", "has a disk that stalls"


class Guest:
    """Shared memory of a front end: its ring is page 0, then pages of data."""

    def __init__(self, number: int) -> None:
        self.memory = mmap.mmap(-1, PAGES * PAGE)
        self.view = memoryview(self.memory)
        self.kick, self.told = os.eventfd(0), os.eventfd(0)
        self.number = number
        self.instance: Instance | None = None
        self.counts = Counts()

    def rd32(self, offset: int) -> int:
        return int(struct.unpack_from("<I", self.view, offset)[0])

    def wr32(self, offset: int, value: int) -> None:
        struct.pack_into("<I", self.view, offset, value)

    def mb(self) -> None:
        pass

    def behave(self) -> None:
        """The front end's process: writes of a page, a ring full of them at a time."""
        ring = FrontRing(self, 1, X86_64.stride, "front")
        sector = 0
        while True:
            while ring.free():
                at = ring.slot()
                sector = (sector + 40) % (SIZE // 512 - 8)
                entry = X86_64.request(abi.BLKIF_OP_WRITE, 1, 1, sector)
                entry += struct.pack(SEGMENT, 1 + sector % 32, 0, 7)
                self.view[at : at + len(entry)] = entry
            if ring.push():
                os.eventfd_write(self.kick, 1)
            while ring.take(12) is None:
                if not ring.rearm():
                    os.eventfd_read(self.told)

    def corrupt(self) -> None:
        """The hostile one's process: each connection's ring is corrupt at once."""
        while True:
            os.eventfd_read(self.told)
            self.wr32(abi.SRING_REQ_PROD, 1 << 30)
            os.eventfd_write(self.kick, 1)


class Frames:
    def __init__(self, guest: Guest, refs: Sequence[int]) -> None:
        self._pages = [guest.view[ref * PAGE : (ref + 1) * PAGE] for ref in refs]

    def slices(self, start: int, end: int) -> list[memoryview]:
        first = start // PAGE
        return [self._pages[first][start - first * PAGE : end - first * PAGE]]

    def unmap(self) -> None:
        self._pages = []


class Channel:
    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def fileno(self) -> int:
        return self._guest.kick

    def take(self) -> None:
        os.eventfd_read(self._guest.kick)

    def notify(self) -> None:
        os.eventfd_write(self._guest.told, 1)

    def close(self) -> None:
        pass


class Grants:
    def __init__(self, guest: Guest) -> None:
        self._guest = guest

    def map(self, refs: Sequence[int], writable: bool) -> Frames:
        return Frames(self._guest, refs)

    def close(self) -> None:
        pass


class Stalling(File):
    stalled = False

    def write(self, offset: int, buffers: list[memoryview]) -> None:
        if self.stalled:
            raise ports.Stalled("as asked")
        super().write(offset, buffers)


class Xen(dom0.Xen):
    """Only the threads of a real one."""

    def __init__(self) -> None:
        self.threads = set()


def connect(xen: Xen, guest: Guest, sink: File, complaints: Complaints) -> None:
    """A worker for a guest, and another one whenever its connection has ended."""
    frames = Frames(guest, [0])
    memory = RingMemory(frames, 1)
    ring = BackRing(memory, 1, X86_64.stride, "back")
    grants, channel = Grants(guest), Channel(guest)
    connection = Connection(
        X86_64, grants, frames, memory, ring, channel, Pool(grants, persistent=True)
    )

    def ended() -> None:
        complaints.add(guest.number, f"guest {guest.number}: connection ended")
        guest.wr32(abi.SRING_REQ_PROD, guest.rd32(abi.SRING_RSP_PROD))
        # As a device does, whose front end has gone round the states.
        xen.later(lambda: connect(xen, guest, sink, complaints))

    instance = Instance(
        str(guest.number),
        connection,
        sink,
        Geometry(SIZE // 512, 1, False),
        guest.counts,
        lambda text: complaints.add(guest.number, text),
        ended,
    )
    worker: Any = channel
    xen.run(instance, worker)


def site(folder: Path, last: str) -> tuple[list[Guest], list[int], list[str]]:
    """Sixteen guests, the last of which is as said. Returns them, their processes, the log."""
    guests = [Guest(number) for number in range(GUESTS)]
    log: list[str] = []
    for guest in guests:
        FrontRing(guest, 1, X86_64.stride, "front")
    children = []
    for guest in guests:
        child = os.fork()
        if child == 0:
            hostile = last == CORRUPTS and guest is guests[-1]
            guest.corrupt() if hostile else guest.behave()
        children.append(child)
    complaints = Complaints(time.monotonic_ns, log.append)
    xen = Xen()
    for guest in guests:
        path = folder / str(guest.number)
        with path.open("wb") as stream:
            stream.truncate(SIZE)
        sink = Stalling(path, False)
        sink.stalled = last == STALLS and guest is guests[-1]
        connect(xen, guest, sink, complaints)
    return guests, children, log


def measure(folder: Path, last: str) -> list[float]:
    """Requests a second of each of the fifteen, in one round; runs in a process of its own."""
    guests, children, log = site(folder, last)
    time.sleep(ROUND_SECONDS / 2)
    before = [sum(guest.counts.requests.values()) for guest in guests[:-1]]
    began = time.monotonic()
    time.sleep(ROUND_SECONDS)
    took = time.monotonic() - began
    after = [sum(guest.counts.requests.values()) for guest in guests[:-1]]
    for child in children:
        os.kill(child, 9)
    if len(log) > 2 * (1 + int(1.5 * ROUND_SECONDS + 1)):
        print(f"{len(log)} lines were logged", file=sys.stderr)
    return [(b - a) / took for a, b in zip(before, after, strict=True)]


def apart(last: str) -> list[float]:
    """A round in a process that ends with it, threads, front ends and all."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
            found = measure(Path(folder), last)
        os.write(writer, json.dumps(found).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as stream:
        found = json.loads(stream.read())
    os.waitpid(child, 0)
    return [float(value) for value in found]


def run(progress: Display) -> None:
    """Measure and print a line for each kind of guest."""
    found: dict[str, list[float]] = {BEHAVES: [], CORRUPTS: [], STALLS: []}
    for _ in range(ROUNDS):
        for last, values in found.items():
            values.append(statistics.median(apart(last)))
    peer = statistics.median(found[BEHAVES])
    for last in (CORRUPTS, STALLS):
        ours = statistics.median(found[last])
        line = {
            "name": f"blkback, each of 15 disks beside one whose guest {last}",
            "ours": round(ours),
            "peer": round(peer),
            "unit": "requests/s",
            "ratio": round(ours / peer, 2),
        }
        print(json.dumps(line), flush=True)
