"""A host process's side, with its threads, over our xenstored on a unix socket.

The guest's memory is this process's, and an event channel a pair of eventfds.
"""

import os
import struct
import threading

from blkback.front import CONNECTED, INITIALISED, PAGE, WRITE
from fixtures.ringpages import RingPages

from pvdump.blkback import dom0
from pvdump.blkback.attach import attach
from pvdump.blkback.backendstore import BackendStore
from pvdump.blkback.host import Host
from pvdump.blkback.paths import backend_path, front_path
from pvdump.blkback.ports import Refused
from pvdump.blkback.timers import Timers
from pvdump.watches.dispatcher import Dispatcher
from pvdump.xenstore.store import Store
from xenpv.block.blkif import RESPONSE, SEGMENT, X86_64
from xenpv.block.ring import FrontRing

XVDB, XVDC = 51728, 51744


class Memory:
    """Pages that a front end lends, by reference."""

    def __init__(self, pages=64):
        self.all = memoryview(bytearray(pages * PAGE))

    def page(self, ref):
        return self.all[ref * PAGE : (ref + 1) * PAGE]


class MappedFrames:
    def __init__(self, memory, refs):
        self.pages = [memory.page(ref) for ref in refs]

    def slices(self, start, end):
        assert start % PAGE == end % PAGE == 0
        return self.pages[start // PAGE : end // PAGE]

    def unmap(self):
        self.pages = []


class Grants:
    def __init__(self, memory):
        self.memory = memory

    def map(self, refs, writable):
        if max(refs) >= 64:
            raise Refused("no such grant")
        return MappedFrames(self.memory, refs)

    def close(self):
        pass


class Channel:
    """The backend's end: an event is pending at first, as in Xen; told: notified."""

    def __init__(self, told):
        self.fd = os.eventfd(1)
        self.bell = os.eventfd(0, os.EFD_NONBLOCK)
        self.lock = threading.Lock()
        self.told = told

    def kick(self):
        with self.lock:
            if self.fd >= 0:
                os.eventfd_write(self.fd, 1)

    wake = kick

    def take(self):
        os.eventfd_read(self.fd)

    def notify(self):
        self.told.release()

    def close(self):
        with self.lock:
            os.close(self.fd)
            os.close(self.bell)
            self.fd = -1


class Xen(dom0.Xen):
    """Threads as on a real Xen, ports as above."""

    def __init__(self):
        self.threads = set()
        self._timers = Timers()
        self.memory = {}
        self.channels = {}
        self.told = {}

    def grants(self, domid):
        return Grants(self.memory.setdefault(domid, Memory()))

    def bind(self, domid, port):
        told = self.told.setdefault(domid, threading.Semaphore(0))
        self.channels[domid] = Channel(told)
        return self.channels[domid]


def until(store, path, *values):
    """Wait until a node has one of the values, or (None) is gone."""
    changed = threading.Semaphore(0)
    watch = store.watch(path, lambda path, token: changed.release())
    while BackendStore(store).read(path) not in values:
        changed.acquire()
    watch.close()


class Guest:
    """A front end over a connection of its own. Ring: page 0; data: page 1."""

    def __init__(self, store, xen, domid, number=XVDB):
        self.store, self.xen, self.domid = store, xen, domid
        self.front = front_path(domid, number)
        self.back = backend_path(domid, number)

    def until(self, path, *values):
        """Wait until a node has one of the values, or (None) is gone."""
        changed = threading.Semaphore(0)
        watch = self.store.watch(path, lambda path, token: changed.release())
        while BackendStore(self.store).read(path) not in values:
            changed.acquire()
        watch.close()

    def say(self, state, *expected):
        self.store.write(f"{self.front}/state", str(state))
        self.until(f"{self.back}/state", *map(str, expected))

    def connect(self):
        self.until(f"{self.back}/state", "2")
        memory = self.xen.memory.setdefault(self.domid, Memory())
        self.ring = FrontRing(RingPages(memory.page(0)), 1, X86_64.stride, "front")
        self.store.write(f"{self.front}/ring-ref", "0")
        self.store.write(f"{self.front}/event-channel", "1")
        self.say(INITIALISED, CONNECTED)
        return self

    def write(self, sector, data):
        memory = self.xen.memory[self.domid]
        memory.page(1)[: len(data)] = data
        at = self.ring.slot()
        entry = X86_64.request(WRITE, 1, 7, sector) + struct.pack(SEGMENT, 1, 0, 7)
        self.ring.memory.view[at : at + len(entry)] = entry
        if self.ring.push():
            self.xen.channels[self.domid].kick()

    def answer(self):
        while (response := self.ring.take(struct.calcsize(RESPONSE))) is None:
            if not self.ring.rearm():
                self.xen.told[self.domid].acquire()
        return struct.unpack(RESPONSE, response)


class Site:
    def __init__(self, path, opened):
        self.path = path
        self.xen = Xen()
        self.open = opened
        self.tool = Store(path)
        self.start()

    def start(self):
        self.store = Store(self.path)
        self.dispatcher = Dispatcher(self.store)
        self.dispatcher.start()
        self.host = Host(self.dispatcher, BackendStore(self.store), self.xen, self.open)

    def stop(self):
        self.dispatcher.close()
        self.host.close()
        self.store.close()

    def until(self, path, *values):
        until(self.tool, path, *values)

    def make(self, domid, vm):
        """A domain without disks."""
        self.tool.write(f"/local/domain/{domid}/domid", str(domid))
        self.tool.write(f"/local/domain/{domid}/vm", vm)
        self.tool.call(lambda client: client.introduce(domid, 1, 1))

    def create(self, domid, disk=""):
        self.make(domid, f"/vm/{domid}")
        attach(self.tool, domid, "xvdb", disk or f"disk{domid}", False)
        return Guest(self.tool, self.xen, domid)

    def destroy(self, domid):
        self.tool.rm(f"/local/domain/{domid}")
        self.tool.call(lambda client: client.release(domid))
