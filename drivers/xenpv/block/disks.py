"""All disks of this domain, connected beside each other, each with its own failure.

Used where one of several disks is to be chosen. Rules: the error of a disk is its own; a disk
whose backend is dead, slow or hostile takes its own time, and only OTHERS_TIMEOUT of the others'
once one of them will do.
"""

from ..errors import XenError
from ..loop import SECOND
from ..text import decimal
from ..xenbus import Device
from .front import BlkFront
from .supervise import CONNECT_TIMEOUT
from .vdev import NUMBER_MAX

HOME = "device/vbd"
# How many disks are connected at a time. A disk takes three pages of memory at the least.
AT_ONCE = 8
# How long a disk may take to connect once another one will do, or while others wait for their turn.
OTHERS_TIMEOUT = 10 * SECOND


async def numbers(store):
    """Give the virtual device numbers of this domain's disks, ascending, without CD drives.

    Raises: XenstoreError, Timeout.
    """
    found = [decimal(name, 0, NUMBER_MAX) for name in await store.directory(HOME, ())]
    found = sorted(number for number in found if number is not None)
    kinds = await store.loop.gather(
        [store.read_text("%s/%d/device-type" % (HOME, number), "disk") for number in found]
    )
    return [number for number, kind in zip(found, kinds) if kind != "cdrom"]


async def each(store, grants, numbers, work, say=None, limits=None):
    """Connect disks and do work(number, disk) with each as soon as it is connected.

    Args:
        store: Xenstore.
        grants: GrantTable.
        numbers: of the disks, each once; AT_ONCE of them are connected at a time.
        work: an async function, its second argument a BlkFront that it closes. It returns something
            true if the disk will do, so that the others need not be waited for.
        say, limits: as for BlkFront.

    Returns: a list with what work returned for each disk, or the XenError or MemoryError that it
        ended with; a disk whose work ended so is closed.
    """
    survey = _Survey(store, grants, numbers, work, say, limits)
    await store.loop.gather([survey.go_on() for _ in range(min(AT_ONCE, len(numbers)))])
    return [survey.found[number] for number in numbers]


class _Survey:
    """The disks of one each(): those in line, those being connected, those done."""

    def __init__(self, store, grants, numbers, work, say, limits):
        self._store = store
        self._grants = grants
        self._work = work
        self._say = say
        self._limits = limits
        self._line = list(numbers)
        self._connecting = []
        # Whether some disk will do.
        self._is_enough = False
        self.found = {}

    async def go_on(self):
        """Do the work with one disk after the other until none is left in line."""
        while self._line:
            number = self._line.pop(0)
            try:
                self.found[number] = await self._do(number)
            except (XenError, MemoryError) as e:
                self.found[number] = e

    async def _do(self, number):
        store = self._store
        device = Device(store, store.loop, "%s/%d" % (HOME, number))
        await device.find()
        disk = BlkFront(store.loop, self._grants, device, say=self._say, limits=self._limits)
        self._connecting.append(device)
        try:
            is_short = self._is_enough or self._line
            await disk.connect(OTHERS_TIMEOUT if is_short else CONNECT_TIMEOUT)
        finally:
            self._connecting.remove(device)
        result = await _worked(self._work, number, disk)
        if result:
            self._hurry()
        return result

    def _hurry(self):
        """Leave those being connected, and those in line, no more time than OTHERS_TIMEOUT."""
        self._is_enough = True
        until = self._store.loop.now() + OTHERS_TIMEOUT
        for device in self._connecting:
            device.deadline = min(device.deadline, until)


async def _worked(work, number, disk):
    """Do the work with a connected disk; close the disk if the work fails or is cancelled."""
    is_done = False
    try:
        result = await work(number, disk)
        is_done = True
        return result
    finally:
        if not is_done:
            try:
                await disk.close()
            except (XenError, MemoryError):
                # The caller needs to know the first error.
                pass
