"""The boundary between two requests, found in a ring that is used as a crashed kernel left it.

Used by ring.RingTransport where the server can forget nothing of that kernel. The server may hold
half a request of it. What completes the request is told by its header, which is still in the ring
(halfrequest.py). Where the header has been overwritten, the boundary is searched for with NULs, if
no server can be harmed by them. In both cases the boundary is confirmed before it is used: sixteen
NULs are then a request of type 0 (CONTROL) without payload, which is answered with req_id 0: with
an error, or by oxenstored 4.17 with "OK".
Source: docs/misc/xenstore.txt; seen on Xen 4.17 and 4.20.
"""

from .. import abi
from ..errors import NoXenstore, RingCorrupt
from ..loop import SECOND
from . import halfrequest, wire

# The time without progress after which a server counts as stopped.
STOPPED = 5 * SECOND
# How long a server that has taken a whole request takes to answer: as a rule, and at most.
QUIET = SECOND // 4
ANSWER = SECOND
# How long, and with how many NULs at most, the boundary is looked for.
SEARCH = 60 * SECOND
NULS_MAX = 4 * wire.PACKET_MAX
# How often a boundary that is known is confirmed: a slow server may first answer older requests.
CONFIRMATIONS = 4
# As many NULs as the search sends to a server that was at a boundary.
IN_STEP = 32
HEADER = bytes(abi.XSD_SOCKMSG_SIZEOF)


class Boundary:
    """The search in one ring.

    Args:
        ring: ring.RingTransport, open; nobody else uses it meanwhile.
    """

    def __init__(self, ring):
        self.ring = ring
        self.loop = ring.loop
        self.deadline = self.loop.now() + SEARCH

    async def find(self):
        """Bring the server to the boundary of a request.

        Returns: what was done for it, for messages, "" for nothing.
        Raises: NoXenstore when the server does not answer, or when it might not survive a guess.
        """
        window = self.ring.written()
        await self._drain(QUIET)
        rest = halfrequest.completion(window)
        if rest is None:
            if not halfrequest.takes_nuls(window):
                raise NoXenstore(
                    "xenstore: the crashed kernel's last request is not whole, and its header"
                    " cannot be made out in the ring; %s" % self.ring.state()
                )
            nuls = await self._search()
            return "in step after %d NULs" % nuls if nuls > IN_STEP else ""
        came = await self._send(rest)
        await self._confirm(came)
        return "a request completed with %d bytes" % len(rest) if rest else ""

    async def _confirm(self, came):
        """Have a request refused. came: replies that have come since the last silence."""
        for _ in range(CONFIRMATIONS):
            if await self._answered(came + await self._send(HEADER)):
                return
            await self._drain(ANSWER)
            came = b""
        raise self._silent()

    async def _search(self):
        """Send NULs until they begin at a boundary. Returns how many.

        Sixteen of them are a request, once those are taken that complete the last one. Fifteen are
        never answered if, and only if, they begin at a boundary; those that are answered come one
        byte closer to it. A silence may mean a slow server, so it is confirmed with a longer wait;
        if an answer comes then, all later waits are longer.
        """
        nuls = 0
        usual = QUIET
        likely = False
        while self.loop.now() < self.deadline and nuls < NULS_MAX:
            quiet = ANSWER if likely else usual
            nuls += 15
            if await self._send(bytes(15)) or await self._drain(quiet):
                if likely:
                    usual = min(2 * usual, ANSWER)
                likely = False
                continue
            nuls += 1
            if not await self._answered(await self._send(bytes(1))):
                likely = False
                nuls += wire.PACKET_MAX
                await self._send(bytes(wire.PACKET_MAX))
                await self._drain(usual)
            elif quiet < ANSWER:
                likely = True
            else:
                return nuls
        raise self._silent()

    def _silent(self):
        return NoXenstore(
            "xenstore: no request of this guest is answered as it should be; %s" % self.ring.state()
        )

    async def _send(self, left):
        """Send bytes and wait until the server has taken them. Returns what it sent meanwhile."""
        ring = self.ring
        came = b""
        waiting = len(left) + ring.untaken()
        deadline = self.loop.now() + STOPPED
        while left or ring.untaken():
            rest = len(left) + ring.untaken()
            if rest < waiting:
                waiting = rest
                deadline = self.loop.now() + STOPPED
            if self.loop.now() >= deadline:
                raise NoXenstore(
                    "xenstore: the server took nothing from the ring for %d s; %s"
                    % (STOPPED // SECOND, ring.state())
                )
            left = left[ring.write(left) :]
            came += ring.read(abi.XENSTORE_RING_SIZE)
            ring.tell()
            await ring.signal.wait(self.loop.now() + SECOND // 100)
        return came

    async def _drain(self, quiet):
        """Take replies away until none has come for `quiet` ns. Returns whether any came."""
        any_came = False
        until = self.loop.now() + quiet
        while self.loop.now() < until:
            if self.loop.now() >= self.deadline:
                raise NoXenstore(
                    "xenstore: the server does not stop sending to the crashed kernel; %s"
                    % self.ring.state()
                )
            if self.ring.read(abi.XENSTORE_RING_SIZE):
                any_came = True
                self.ring.tell()
                until = self.loop.now() + quiet
            await self.ring.signal.wait(until)
        return any_came

    async def _answered(self, came):
        """Return whether the reply comes that a header of NULs is answered with."""
        parser = wire.Parser()
        until = self.loop.now() + ANSWER
        while self.loop.now() < until:
            parser.feed(came)
            try:
                packet = parser.next()
            except RingCorrupt:
                return False
            if packet is None:
                await self.ring.signal.wait(until)
            elif packet.req_id == 0 and packet.type in (abi.XS_ERROR, abi.XS_CONTROL):
                return True
            came = self.ring.read(abi.XENSTORE_RING_SIZE)
        return False
