"""The disks of a guest that boots: looked through for a kernel and for a counter of boots.

Used by the mode `boot`. The disks are looked through in the order of their numbers, and the first
that has something to boot counts. Rules: what is wrong with a disk costs a note or a line; a disk
that nothing is booted from is closed as soon as it was looked at, but for that with the counter.
"""

from pvfw.boot import sources
from pvfw.boot.area import Cache
from pvfw.boot.errors import BootError
from pvfw.boot.volumes import Notes, Volumes
from pvfw.errors import reason
from pvfw.report import say
from xenpv.block import disks, vdev
from xenpv.block.front import BlkFront
from xenpv.block.negotiate import Limits
from xenpv.block.supervise import CONNECT_TIMEOUT
from xenpv.errors import XenError
from xenpv.loop import SECOND
from xenpv.xenbus import Device

from . import counter

# Pages of the ring, requests in flight, frames of each.
LIMITS = (4, 64, 256)
# Of disks that are only looked at for a counter, and how long they may take to connect, ns.
LIGHT = (1, 1, 1)
LIGHT_TIMEOUT = 5 * SECOND
DISKS_MAX = 16


class Disks:
    """The disks that are connected.

    Args:
        guest: shell.guest.ShellGuest.
        trust: boot.trust.Trust, None where nothing need be signed.

    Attributes: cache, boot.area.Cache.
    """

    def __init__(self, guest, trust=None):
        self._guest = guest
        self._trust = trust
        self._fronts = {}
        self._numbers = []
        self._added = []
        # Of the disk that has the counter, where nothing is booted from it.
        self._extra = []
        self._volumes = None
        self.cache = Cache()

    async def look(self):
        """Find what is to be booted. Returns entries.Menu, perhaps without entries."""
        guest, notes = self._guest, Notes()
        volumes = self._volumes = Volumes(notes, self._trust)
        self._numbers = there = (await disks.numbers(guest.store))[:DISKS_MAX]
        if not there:
            say("this guest has no disk")
        menu = await sources.look(volumes, notes)
        for number in there:
            name = vdev.name(number)
            try:
                front = await self._connect(number, LIMITS)
                self._added.append(number)
                await volumes.add(self.cache, name, front)
                menu = await sources.look(volumes, notes)
            except (BootError, XenError, MemoryError) as e:
                notes.add("disk %s: %s" % (name, e))
            if menu.entries:
                break
        if not menu.entries or self._trust is not None:
            for line in notes.lines:
                say(line)
        if not menu.entries:
            say("no disk says what is to be booted")
        return menu

    async def _connect(self, number, limits, timeout=CONNECT_TIMEOUT):
        guest = self._guest
        device = Device(guest.store, guest.loop, "%s/%d" % (disks.HOME, number))
        await device.find()
        front = BlkFront(guest.loop, guest.grants, device, limits=Limits(*limits))
        self._fronts[number] = front
        await front.connect(timeout)
        return front

    async def counter(self):
        """Find the counter of boots, after look(). Returns counter.Counter, or None."""
        for number in self._numbers:
            if number in self._fronts:
                found = await self._counter_on(number)
                if found is not None:
                    return found
        others = [number for number in self._numbers if number not in self._fronts]
        await self._guest.loop.gather([self._try(number) for number in others])
        found = None
        for number in others:
            if found is None:
                found = await self._counter_on(number)
                if found is not None:
                    self._extra.append(number)
                    continue
            await self._leave(number)
        return found

    async def _try(self, number):
        try:
            await self._connect(number, LIGHT, LIGHT_TIMEOUT)
        except (XenError, MemoryError) as e:
            say("disk %s is not looked at: %s" % (vdev.name(number), reason(e)))

    async def _counter_on(self, number):
        front, name = self._fronts.get(number), vdev.name(number)
        if front is None or not front.connected():
            return None
        try:
            self.cache.renew()
            if number not in self._added:
                self._added.append(number)
                await self._volumes.add(self.cache, name, front)
            return await counter.find(self.cache, name, front, self._volumes)
        except (BootError, XenError, MemoryError) as e:
            say("disk %s: no counter of boots: %s" % (name, e))
            return None

    async def _leave(self, number):
        """Close a disk from which nothing is booted; that it does not close is told."""
        front = self._fronts.pop(number, None)
        try:
            if front is not None:
                await front.close()
        except (XenError, MemoryError) as e:
            say("leaving disk %s: %s" % (vdev.name(number), reason(e)))

    async def close(self):
        """Close all of them. Raises: XenError, the first of those that were booted from."""
        error = None
        for number in self._extra:
            await self._leave(number)
        for front in self._fronts.values():
            try:
                await front.close()
            except XenError as e:
                error = error or e
        self._fronts = {}
        self.cache.close()
        if error is not None:
            raise error
