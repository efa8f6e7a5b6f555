"""A block front end's connection: made, watched, made again when its backend comes back.

Base of front.BlkFront, which puts parts into the queue and waits here for them. Rules: a backend
that leaves Connected is waited for and taken up again, and gets once more what it had not answered;
one that breaks the protocol is left for good; every wait is bounded, and whoever waits is the one
who looks after the backend.
Source: xen/include/public/io/xenbus.h, blkif.h.
"""

from ..abi import BLKIF_OP_DISCARD, XenbusStateConnected
from ..errors import Timeout, XenError
from ..loop import SECOND
from ..xenbus import state_name
from . import takeover
from .blkif import OP_NAMES, SECTOR
from .connection import Attachment
from .queue import Queue

# How long a backend may go without completing any request, and how long it may be away.
STALL = 30 * SECOND
AWAY = 60 * SECOND
LOOK_AGAIN = SECOND
# When nothing is in flight because other devices have all grant entries; whenever a wait of the
# loop's has passed, all tasks with a port look, and so fill their rings.
BREATHER = SECOND // 100


class Connection:
    """As for BlkFront. wanted: negotiate.Limits, what to use at most; pool: connection.Pool."""

    def __init__(self, loop, grants, device, mend, say, wanted, pool):
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
        self._queue = Queue(loop, device.path, mend, self._unsupported)
        self._pool = pool
        self._attached = None
        # The task that takes answers.
        self._pump = None
        # The backend has gone; whoever waits next takes it up again.
        self._away = False

    # Connecting.

    async def connect(self):
        """Bring the disk up, or leave it closed. Raises XenError, MemoryError."""
        await takeover.ended(self.loop, self.grants, self.device, self._tell)
        await self.device.begin()
        try:
            await self._attach()
        except (XenError, MemoryError) as e:
            try:
                await self._leave()
            except XenError:
                # What went wrong first is what the caller needs to know.
                pass
            raise e

    async def _attach(self):
        self._attached = attached = Attachment(
            self.loop, self.grants, self.device, self._pool, self._wanted.again()
        )
        await attached.connect()
        self.properties = properties = attached.properties
        self.sectors = properties.sectors
        self.sector_size = properties.sector_size
        self.read_only = properties.read_only
        self.removable = properties.removable
        self.persistent = attached.persistent
        self.limits = attached.limits
        for note in attached.notes:
            self._tell(note)
        self._queue.begin(attached.link, attached.port, attached.limits)
        self._pump = self.loop.spawn(self._collect(attached.kick, attached.link.ring))

    def connected(self):
        """Whether there is a connection, to be closed one day."""
        return self._attached is not None

    def _tell(self, line):
        if self.say is not None:
            self.say("%s: %s" % (self.device.path, line))

    def _unsupported(self, op):
        """The backend does not know an operation that it had offered."""
        self._tell("the backend refuses %s, which it had offered" % OP_NAMES[op])
        if op == BLKIF_OP_DISCARD:
            self.properties.discards = False
        elif op in self.properties.flushes:
            self.properties.flushes.remove(op)

    async def _collect(self, kick, ring):
        """The task that takes answers and fills the ring again."""
        try:
            while True:
                self._queue.collect()
                if not ring.rearm():
                    await kick.wait(None)
        except XenError as e:
            self._queue.die(str(e))

    # Waiting.

    async def _progress(self):
        """Wait for an answer. Raises BackendError, Timeout when the backend is gone or stuck."""
        queue = self._queue
        queue.check()
        soon = LOOK_AGAIN if queue.in_flight() else BREATHER
        await queue.changed.wait(self.loop.now() + soon)
        waited = self.loop.now() - queue.answered_at
        if queue.failure is not None or self._away or waited < LOOK_AGAIN:
            return
        state = await self._backend_state()
        if queue.failure is not None or self._away:
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
            self.loop.evtchn.send(self._attached.port)

    async def _backend_state(self):
        """The backend's state; Connected where xenstore does not say: the ring decides then."""
        try:
            return await self.device.backend_state()
        except XenError:
            return XenbusStateConnected

    # A backend that went away.

    async def _take_up_again(self, state):
        """Wait until the backend can be connected again; what it did not answer is done again."""
        self._away = True
        why = "the backend left Connected, its state is %s" % state_name(state)
        self._tell(why + "; waiting for it")
        again = self._queue.end()
        try:
            await self._return(why)
        finally:
            self._away = False
        self._queue.check()
        self._tell("the backend is back, %d requests are done again" % again)
        self._queue.admit()
        self._queue.changed.set()

    async def _return(self, why):
        sectors, size = self.sectors, self.sector_size
        deadline = self.loop.now() + AWAY
        self._let_go()
        while True:
            try:
                await self.device.find()
                await self.device.begin()
                await self._attach()
                break
            except (XenError, MemoryError) as e:
                self._let_go()
                if self.loop.now() >= deadline:
                    self._queue.die(
                        "%s; it was not back within %d s: %s" % (why, AWAY // SECOND, e)
                    )
                    return
            await self.loop.sleep(LOOK_AGAIN)
        if self.sectors < sectors or self.sector_size != size:
            self._queue.die(
                "%s; it came back with %d sectors in units of %d bytes, there were %d of %d"
                % (why, self.sectors, self.sector_size, sectors, size)
            )

    # Leaving.

    def _let_go(self):
        """End what belongs to this connection: task, event channel, grants."""
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        self._queue.end()
        if self._attached is not None:
            self._attached.let_go()
            self._attached = None

    async def _leave(self):
        try:
            await self.device.close()
        finally:
            self._let_go()
