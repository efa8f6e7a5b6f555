"""A disk from connect() to close(): connected, watched, connected again if its backend comes back.

Base of front.BlkFront, which puts parts into the queue and waits here for them. A disk has one
Connection after the other. Rules: a backend that leaves Connected is waited for and connected to
again, and gets once more what it had not answered; one that breaks the protocol is left for good;
every wait is bounded, and the task that waits also looks after the backend.
Source: xen/include/public/io/xenbus.h, blkif.h.
"""

from ..abi import BLKIF_OP_DISCARD, XenbusStateConnected
from ..errors import Timeout, XenError
from ..loop import SECOND
from ..xenbus import Refused, state_name
from . import takeover
from .blkif import OP_NAMES, SECTOR
from .connection import Connection, Pool
from .queue import Queue

# How long all steps of connecting a disk may take together, the take-over included. Linux waits as
# long for the disks that it boots from: xenbus_probe_frontend.c, wait_for_devices.
CONNECT_TIMEOUT = 300 * SECOND
# How long closing a disk may take; and closing one that could not be connected.
CLOSE_TIMEOUT = 30 * SECOND
UNDO_TIMEOUT = 5 * SECOND
# How long a backend may go without completing any request, and how long it may be away.
STALL = 30 * SECOND
AWAY = 60 * SECOND
LOOK_AGAIN = SECOND
# Between two connections to a backend that refuses passes an eighth of the time so far, and at
# least and at most so much.
ASK_AGAIN_MIN = SECOND // 2
ASK_AGAIN_MAX = 8 * SECOND
# The wait when nothing is in flight because other devices have all grant entries. When it is over,
# the loop wakes all tasks with a port, and so each disk fills its ring.
BREATHER = SECOND // 100


class SupervisedDisk:
    """A disk from connect() to close().

    Args:
        loop, grants, device, mend, say: as for BlkFront.
        wanted: negotiate.Limits, what to use at most.
        buffers: as for BlkFront.

    Attributes: as of BlkFront; and for suspend.py: queue, Queue; connection, Connection or None;
    changing, how many connections are being made or ended; away, whether somebody waits for the
    backend to come back, and back_by, until when; suspended, whether a suspension is under way, and
    interrupted, whether it has ended a connection that resume() makes anew.
    """

    def __init__(self, loop, grants, device, mend, say, wanted, buffers):
        self.loop = loop
        self.grants = grants
        self.device = device
        self.say = say
        self.properties = None
        self.sectors = 0
        self.sector_size = SECTOR
        self.read_only = False
        self.removable = False
        self.persistent = False
        self.limits = self._wanted = wanted
        self.queue = Queue(loop, device.path, mend, self._unsupported)
        self._pool = Pool(buffers)
        self.connection = None
        # The task that takes answers.
        self._pump = None
        # back_by stays the same until a request is answered; when the backend was last connected
        # again.
        self.away = False
        self.back_by = 0
        self._back_at = None
        self.changing = 0
        self.suspended = False
        self.interrupted = False

    # Connecting.

    async def connect(self, timeout=CONNECT_TIMEOUT):
        """Connect the disk, or leave it closed.

        Args:
            timeout: how long that may take, ns; the device's deadline can be moved meanwhile.

        Raises: XenError, MemoryError.
        """
        while self.grants.suspended:
            await self.loop.sleep(BREATHER)
        self.grants.devices.append(self)
        self.changing += 1
        try:
            await self._connect(timeout)
        finally:
            self.changing -= 1
            if self.connection is None:
                self._forget()

    async def _connect(self, timeout):
        self.device.allow(timeout)
        taken_over = await takeover.take_over(self.loop, self.grants, self.device, self.tell)
        await self.device.begin()
        is_made = False
        try:
            await self._make_connection(taken_over)
            is_made = True
        finally:
            if not is_made:
                try:
                    await self._leave(UNDO_TIMEOUT)
                except (XenError, MemoryError):
                    # The caller needs to know the first error.
                    pass

    async def _make_connection(self, taken_over):
        """Make a connection; where one was taken over, again when the backend refuses.

        Linux's blkback refuses a new connection while I/O of the last one is under way ("pending
        I/O"), so it is asked again.
        """
        began = self.loop.now()
        while True:
            try:
                await self._attach()
                return
            except Refused as e:
                refused = e
            self.let_go()
            if not taken_over:
                raise refused
            now = self.loop.now()
            pause = max(ASK_AGAIN_MIN, min((now - began) // 8, ASK_AGAIN_MAX))
            await self.loop.sleep(min(pause, max(self.device.deadline - now, 0)))
            try:
                await takeover.end_connection(self.device)
                await self.device.begin()
            except Timeout:
                raise refused

    async def _attach(self):
        self.connection = connection = Connection(
            self.loop, self.grants, self.device, self._pool, self._wanted.again()
        )
        await connection.connect()
        self.properties = properties = connection.properties
        self.sectors = properties.sectors
        self.sector_size = properties.sector_size
        self.read_only = properties.read_only
        self.removable = properties.removable
        self.persistent = connection.persistent
        self.limits = connection.limits
        for note in connection.notes:
            self.tell(note)
        self.queue.begin(connection.requests, connection.port, connection.limits)
        self._pump = self.loop.spawn(self._collect(connection.kick, connection.requests.ring))

    def connected(self):
        """Tell whether there is a connection, which close() would end."""
        return self.connection is not None

    def tell(self, line):
        if self.say is not None:
            self.say("%s: %s" % (self.device.path, line))

    def _unsupported(self, op):
        """React to a backend that does not know an operation that it had offered."""
        self.tell("the backend refuses %s, which it had offered" % OP_NAMES[op])
        if op == BLKIF_OP_DISCARD:
            self.properties.discards = False
        elif op in self.properties.flushes:
            self.properties.flushes.remove(op)

    async def _collect(self, kick, ring):
        """Take answers and fill the ring again, as a task, until the connection ends."""
        try:
            while True:
                self.queue.collect()
                if not ring.rearm():
                    await kick.wait(None)
        except XenError as e:
            self.queue.die(str(e))
        except MemoryError as e:
            # An answer may be lost, so the requests in flight are in doubt.
            self.queue.die("no memory to take the backend's answers: %s" % e)

    # Waiting.

    async def _progress(self):
        """Wait for an answer. Raises BackendError, Timeout when the backend is gone or stuck."""
        queue = self.queue
        queue.check()
        soon = LOOK_AGAIN if queue.in_flight() else BREATHER
        await queue.changed.wait(self.loop.now() + soon)
        waited = self.loop.now() - queue.answered_at
        if queue.failure is not None or self.away or waited < LOOK_AGAIN:
            return
        state = await self._backend_state()
        if queue.failure is not None or self.away:
            return
        if state != XenbusStateConnected:
            await self._take_up_again(state)
        elif waited >= STALL and queue.busy():
            raise Timeout(
                "%s: no request completed for %d s, %d in flight; grant entries: %d free, %d still"
                " mapped by a backend"
                % (
                    self.device.path,
                    STALL // SECOND,
                    queue.in_flight(),
                    self.grants.free(),
                    self.grants.set_aside,
                )
            )
        elif queue.in_flight():
            # It may have missed the event.
            self.loop.evtchn.send(self.connection.port)

    async def _backend_state(self):
        """Return the backend's state; Connected if xenstore fails: the ring decides then."""
        try:
            return await self.device.backend_state()
        except XenError:
            return XenbusStateConnected

    # A backend that went away.

    async def _take_up_again(self, state):
        """Wait until the backend is connected again; what it did not answer is done again."""
        queue, now = self.queue, self.loop.now()
        why = "the backend left Connected, its state is %s" % state_name(state)
        if queue.answered_at != self._back_at:
            self.back_by = now + AWAY
        elif now >= self.back_by:
            queue.die("%s; it came back and answered nothing for %d s" % (why, AWAY // SECOND))
            queue.check()
        self.away = True
        self.tell(why + "; waiting for it")
        again = queue.end()
        try:
            await self.come_back(why)
        finally:
            self.away = False
        queue.check()
        self._back_at = queue.answered_at
        self.tell("the backend is back, %d requests are done again" % again)
        queue.admit()
        queue.changed.set()

    async def come_back(self, why):
        sectors, size = self.sectors, self.sector_size
        self.device.deadline = self.back_by
        self.let_go()
        while True:
            while self.suspended and not self.interrupted:
                await self.loop.sleep(BREATHER)
            try:
                await self._attach_again()
                break
            except (XenError, MemoryError) as e:
                self.let_go()
                if self.loop.now() >= self.back_by:
                    self.queue.die("%s; it was not back within %d s: %s" % (why, AWAY // SECOND, e))
                    return
            await self.loop.sleep(min(LOOK_AGAIN, self.back_by - self.loop.now()))
        if self.sectors < sectors or self.sector_size != size:
            self.queue.die(
                "%s; it came back with %d sectors in units of %d bytes, there were %d of %d"
                % (why, self.sectors, self.sector_size, sectors, size)
            )

    async def _attach_again(self):
        self.changing += 1
        try:
            await self.device.find()
            await takeover.end_connection(self.device)
            await self.device.begin()
            await self._attach()
        finally:
            self.changing -= 1

    # Leaving.

    def let_go(self):
        """End the connection's task, event channel and grants."""
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        self.queue.end()
        if self.connection is not None:
            self.connection.let_go()
            self.connection = None

    def _forget(self):
        if self in self.grants.devices:
            self.grants.devices.remove(self)

    async def _leave(self, timeout):
        """Close the device within so many ns, and let go of it in any case."""
        self.changing += 1
        self.device.allow(timeout)
        try:
            await self.device.close()
        finally:
            self.changing -= 1
            self._forget()
            self.let_go()
            self._pool.give_back()
