"""The parts of a disk's transfers: those that stand in line, are in the ring, or have failed.

Used by SupervisedDisk, which waits and looks after the backend; nothing here waits. Rules: a part
stays here until the backend has answered it, so when a connection ends its parts stand in line
again, in their order, before all others; a part that failed is mended or done again before the
failure counts; the first failure that cannot be helped is kept for the tasks that wait.
Units: sectors of 512 bytes, frames of 4096.
"""

from .. import abi
from ..errors import BackendError
from ..loop import Signal
from .blkif import OP_NAMES, STATUS_NAMES
from .requests import Part

# How often a request that failed is done again before the failure counts.
RETRIES = 2


class Queue:
    """The parts of one disk, kept from one connection to the next.

    Args:
        loop: Loop.
        name: the device's, for messages.
        mend: as for BlkFront.
        unsupported: a function that is given an operation that the backend does not know after all.

    Attributes: changed, the Signal of each answer and failure; answered_at, the time (ns) of the
    last answer, or from which one is waited for; failure, None or the first one's message; dead,
    whether the disk must not be used any more; unflushed, whether anything was written since the
    last flush; written_to, the sector behind the last one written; held, whether what stands in
    line stays there.
    """

    def __init__(self, loop, name, mend, unsupported):
        self.loop = loop
        self.name = name
        self.mend = mend
        self.unsupported = unsupported
        self.changed = Signal()
        self.answered_at = 0
        self.failure = None
        self.dead = False
        self.written_to = 0
        self.unflushed = False
        self.held = False
        self._line = []
        self._failed_sectors = []
        self._requests = None
        self._most = 0
        self._port = 0

    # Connections come and go.

    def begin(self, requests, port, limits):
        """Use a new connection; its requests get what the last one's did not answer first.

        Args:
            requests: Requests.
            port: its event channel's.
            limits: negotiate.Limits; parts in line are split to fit them.
        """
        self._requests = requests
        self._port = port
        self._most = limits.requests
        self.answered_at = self.loop.now()
        most = limits.sectors()
        self._line = [piece for part in self._line for piece in part.cut(most)]

    def end(self):
        """Use the connection no more: its parts stand in line again.

        Returns: how many parts are to be done.
        """
        if self._requests is not None:
            self._line = self._requests.unanswered() + self._line
            self._requests = None
        return len(self._line)

    def in_flight(self):
        """Give how many requests are in flight."""
        return self._requests.in_flight if self._requests is not None else 0

    def busy(self):
        """Tell whether anything is to be done or being done."""
        return self.in_flight() > 0 or len(self._line) > 0

    # In.

    def put(self, part):
        """Add a part behind those that stand in line."""
        if not self.busy():
            self.answered_at = self.loop.now()
        self._line.append(part)
        if part.op == abi.BLKIF_OP_WRITE:
            self.unflushed = True
            self.written_to = max(self.written_to, part.sector + part.count)
        self.admit()

    def waits(self, part):
        """Tell whether a part stands in line, not in the ring."""
        return part in self._line

    def admit(self):
        """Put into the ring what stands in line, as far as there is room."""
        requests = self._requests
        line = self._line
        if requests is None or self.held:
            return
        before = requests.submitted
        while line and requests.in_flight < self._most and requests.takes(line[0]):
            requests.submit(line.pop(0))
        if requests.submitted != before and requests.ring.push():
            self.loop.evtchn.send(self._port)

    # Out.

    def collect(self):
        """Take all answers that are there, and fill the ring again. Raises RingCorrupt."""
        done = self._requests.take()
        while done is not None:
            self._judge(done[0], done[1])
            done = self._requests.take()
        self.admit()

    def _judge(self, part, status):
        self.answered_at = self.loop.now()
        self.changed.set()
        if status == abi.BLKIF_RSP_OKAY:
            return
        if part.op in (abi.BLKIF_OP_FLUSH_DISKCACHE, abi.BLKIF_OP_WRITE_BARRIER):
            if status == abi.BLKIF_RSP_EOPNOTSUPP:
                self.unsupported(part.op)
                return
        elif part.op == abi.BLKIF_OP_DISCARD:
            if status == abi.BLKIF_RSP_EOPNOTSUPP:
                self.unsupported(part.op)
            return
        elif self._help(part):
            return
        if part.op == abi.BLKIF_OP_WRITE:
            self._failed_sectors.append(part.sector)
        self.fail(
            "%s of sector %d failed: status %d (%s)"
            % (OP_NAMES[part.op], part.sector, status, STATUS_NAMES[status])
        )

    def _help(self, part):
        """Queue parts that may succeed in place of a failed one. Returns whether there are any."""
        if part.op == abi.BLKIF_OP_WRITE and self.mend is not None:
            again = self.mend(part.sector, part.gfn, part.count)
            if again is not None:
                self._line = [Part(part.op, *write) for write in again] + self._line
                return True
        part.tries += 1
        if part.tries > RETRIES:
            return False
        self._line.insert(0, part)
        return True

    # Failures.

    def check(self):
        """Raise BackendError if anything has failed."""
        if self.failure is not None:
            raise BackendError(self.failure)

    def fail(self, why):
        """Keep a failure if it is the first one, and wake the tasks that wait for an answer."""
        if self.failure is None:
            self.failure = "%s: %s" % (self.name, why)
        self.changed.set()

    def die(self, why):
        """Use the disk no more, for this reason."""
        self.dead = True
        self.failure = None
        self.fail(why)

    def forgive(self):
        """Go on after a failure that leaves the device usable."""
        if not self.dead:
            self.failure = None

    def drop_line(self):
        """Give up what is not in the ring."""
        self._failed_sectors += [part.sector for part in self._line]
        self._line = []

    # What is written.

    def writing(self, sector):
        """Tell whether a write that begins at this sector is not yet acknowledged."""
        return sector in self._unwritten()

    def _unwritten(self):
        parts = (self._requests.unanswered() if self._requests else []) + self._line
        return [part.sector for part in parts if part.op == abi.BLKIF_OP_WRITE]

    def pending(self):
        """Give the sectors where writes begin that failed or are not yet acknowledged."""
        return self._unwritten() + self._failed_sectors

    def acknowledged(self, first):
        """Give the sector up to which all writes from sector `first` on have been completed.

        It is right if the caller writes these sectors in ascending order.
        """
        lowest = max(self.written_to, first)
        for sector in self.pending():
            if sector >= first:
                lowest = min(lowest, sector)
        return lowest
