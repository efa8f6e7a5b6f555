"""The xenstore client: all operations, many requests in flight, watches, transactions.

Used by xenbus, the firmware and host programs; works over any transport (ring in a guest, a
stream on a host). One task moves bytes both ways; each caller waits for its own reply, with a
deadline. Rules: a message may be larger than the ring; a caller that is cancelled leaves nothing
behind but a reply that is dropped; a fault of the server ends the connection, every caller gets the
reason, and connect() may be called again.
Source: docs/misc/xenstore.txt; xen/include/public/io/xs_wire.h.
"""

import gc

from .. import abi
from ..errors import RingCorrupt, Timeout, XenError, XenstoreError
from ..loop import SECOND, Signal
from .domains import Domains
from .nodes import NodeOperations, reply_number
from .session import Session, WatchEvent
from .watch import Watch

TIMEOUT = 5 * SECOND
# When nothing has come or gone for so long the server is told again: an event may have been lost.
TELL_AGAIN = SECOND
# When memory has run out, it is tried again after this.
BREATHER = SECOND // 100
# Bytes, then others have their turn: a server that never stops talking stops no deadline.
UNINTERRUPTED = 16 * abi.XENSTORE_RING_SIZE
TRIES = 16
RESETS_WATCHES = "control/platform-feature-xs_reset_watches"


class _Caller:
    """A request and whoever waits for its reply.

    req_id: None while it stands in the line; fault: why its connection has ended; gone: nobody
    waits, but what the reply gives is to be given back.
    """

    def __init__(self, type, tx_id, payload):
        self.type = type
        self.tx_id = tx_id
        self.payload = payload
        self.req_id = None
        self.reply = None
        self.fault = None
        self.gone = False
        self.signal = Signal()


class Xenstore(NodeOperations, Domains):
    """loop: Loop; transport: ring.RingTransport or another with the same methods."""

    def __init__(self, loop, transport):
        super().__init__()
        self.loop = loop
        self.transport = transport
        self._session = None
        self._watches = {}
        self._line = []
        self._fault = "not connected"
        self._pump = None
        self._ended = Signal()
        self._tokens = 0
        self._token = ""

    async def connect(self):
        """Take the transport over. Raises XenError (there is none), Timeout, RingCorrupt."""
        if self._pump is not None:
            self._pump.cancel()
            self._end(XenError("xenstore: the connection was made anew"))
        try:
            await self.transport.open()
        except RingCorrupt as e:
            raise RingCorrupt("%s; %s" % (e, self.transport.state()))
        # Far from where an earlier kernel's ids are, so that its late replies match nothing.
        first = (self.loop.now() & 0x3FFFFFFF) | 0x40000000
        self._session = Session(first)
        self._token = "pv%x-" % first
        self._line = []
        # Taken from the transport and from the session, and not yet handed on.
        self._came = b""
        self._event = None
        self._moved_at = self.loop.now()
        self._fault = None
        self._pump = self.loop.spawn(self._move())
        if self.transport.stale and await self.read_text(RESETS_WATCHES, "0") == "1":
            await self.reset_watches()

    def connected(self):
        """Whether requests can be sent."""
        return self._fault is None

    def fault(self):
        """Why requests cannot be sent, None if they can."""
        return self._fault

    async def ended(self):
        """Wait until the connection has ended. Returns why."""
        while self._fault is None:
            await self._ended.wait(None)
        return self._fault

    async def close(self):
        """Leave the transport to the next client: nothing in flight, no watch, no transaction."""
        if self._pump is None:
            return
        try:
            if self._fault is None and not self.transport.resets():
                for watch in list(self._watches.values()):
                    await watch.close()
            deadline = self.loop.now() + TIMEOUT
            while self._fault is None and self._busy() and self.loop.now() < deadline:
                await self.loop.sleep(SECOND // 1000)
        finally:
            self._pump.cancel()
            self._pump = None
            self._end(XenError("xenstore: the connection was closed"))
            await self.transport.close()

    def _busy(self):
        return self._session.flying() or self._line

    # Moving bytes.

    async def _move(self):
        """The task that moves bytes both ways until the connection ends."""
        moved = 0
        while self._fault is None:
            try:
                step = self._step()
                moved += step
                if not step:
                    await self.transport.signal.wait(None)
                    moved = 0
                    continue
                self._moved_at = self.loop.now()
                if moved > UNINTERRUPTED:
                    await self.loop.sleep(0)
                    moved = 0
            except MemoryError:
                # Nothing was lost: the same step will do once there is room.
                gc.collect()
                await self.loop.sleep(BREATHER)
            except XenError as e:
                self._end(e)

    def _step(self):
        """Move what can be moved now. Returns the number of bytes."""
        session = self._session
        transport = self.transport
        moved = 0
        self._deliver()
        while moved <= UNINTERRUPTED:
            data = self._came or transport.read(min(session.room(), abi.XENSTORE_RING_SIZE))
            if not data:
                break
            self._came = data
            session.receive(data)
            self._came = b""
            self._deliver()
            moved += len(data)
        self._admit()
        out = session.outgoing()
        while out:
            count = transport.write(out)
            if count == 0:
                break
            session.sent(count)
            moved += count
            self._admit()
            out = session.outgoing()
        transport.flush()
        return moved

    def _admit(self):
        """Give the session the requests that it has room for, in the order of their coming."""
        session = self._session
        while self._line and session.fits(self._line[0].payload):
            caller = self._line[0]
            caller.req_id = session.request(caller.type, caller.tx_id, caller.payload, caller)
            self._line.pop(0)

    def _deliver(self):
        self._event = self._event or self._session.event()
        while self._event is not None:
            event = self._event
            if isinstance(event, WatchEvent):
                watch = self._watches.get(event.token)
                if watch is None or not watch.take(event.path):
                    self._session.strays += 1
            else:
                event.owner.reply = event
                event.owner.signal.set()
                if event.owner.gone and event.error is None:
                    tx_id = transaction_id(event.payload)
                    self.post(abi.XS_TRANSACTION_END, b"F\0", tx_id)
            self._event = None
            self._event = self._session.event()

    def _end(self, fault):
        """The connection is over: everyone who waits gets the reason."""
        if self._fault is None:
            self._fault = "%s; %s" % (fault, self.transport.state())
        for caller in self._line + self._session.owners():
            caller.fault = self._fault
            caller.signal.set()
        self._line = []
        for watch in self._watches.values():
            watch.signal.set()
        self._watches = {}
        self._ended.set()

    def _alive(self):
        if self._fault is not None:
            raise RingCorrupt(self._fault)

    def _late(self, what, timeout):
        return Timeout(
            "xenstore %s: no reply within %d ms; %s"
            % (what, timeout // 1000000, self.transport.state())
        )

    async def request(self, type, payload, what, tx_id=0, timeout=TIMEOUT):
        """Send one request and wait for its reply.

        type: XS_*; payload: bytes; what: for messages; timeout: ns. Returns the reply's payload.
        Raises XenstoreError (the server's answer), Timeout, RingCorrupt (the connection is over).
        """
        caller = self._enqueue(type, tx_id, payload)
        try:
            await self._reply(caller, what, timeout)
        finally:
            if caller.reply is None:
                self._leave(caller)
        if caller.reply.error is not None:
            raise XenstoreError(what, caller.reply.error)
        return caller.reply.payload

    def _enqueue(self, type, tx_id, payload):
        self._alive()
        if len(payload) > abi.XENSTORE_PAYLOAD_MAX:
            raise ValueError(
                "xenstore payload of %d bytes is over %d" % (len(payload), abi.XENSTORE_PAYLOAD_MAX)
            )
        caller = _Caller(type, tx_id, payload)
        self._line.append(caller)
        self.transport.signal.set()
        return caller

    def _leave(self, caller):
        """Nobody waits for this reply any more."""
        if caller.fault is not None:
            return
        if caller.req_id is not None:
            if caller.type == abi.XS_TRANSACTION_START:
                caller.gone = True
            else:
                self._session.abandon(caller.req_id)
        elif caller in self._line:
            self._line.remove(caller)

    async def _reply(self, caller, what, timeout):
        deadline = self.loop.now() + timeout
        while caller.reply is None:
            if caller.fault is not None:
                raise RingCorrupt(caller.fault)
            now = self.loop.now()
            if now >= deadline:
                raise self._late(what, timeout)
            await caller.signal.wait(min(deadline, self._moved_at + TELL_AGAIN))
            if caller.reply is None and caller.fault is None:
                self._tell_again()

    def _tell_again(self):
        now = self.loop.now()
        if now - self._moved_at >= TELL_AGAIN:
            self._moved_at = now
            try:
                self.transport.tell()
            except XenError as e:
                self._end(e)

    def post(self, type, payload, tx_id=0):
        """Send a request whose reply nobody waits for, as soon as there is room."""
        if self._fault is None:
            self._enqueue(type, tx_id, payload)

    # Watches.

    async def watch(self, path, depth=None, limit=64):
        """Be told of changes at and below a path, or of @introduceDomain and @releaseDomain.

        depth: levels below path that count, where the server offers that; limit: events that wait
        to be taken. Returns a Watch, whose first event tells that it is set.
        """
        self._tokens += 1
        watch = Watch(self, path, self._token + str(self._tokens), limit)
        rest = watch.token.encode() + b"\0"
        if depth is not None:
            rest += str(depth).encode() + b"\0"
        token = watch.token.encode()
        self._watches[token] = watch
        try:
            await self.ask(abi.XS_WATCH, path, rest)
        except (XenstoreError, ValueError):
            self._watches.pop(token, None)
            raise
        except BaseException:
            # Whoever goes away while it is being set leaves none behind.
            if self._watches.pop(token, None) is not None:
                self.post(abi.XS_UNWATCH, path.encode() + b"\0" + token + b"\0")
            raise
        return watch

    async def unwatch(self, watch):
        """End a watch; no event of it comes any more. Used by Watch.close()."""
        token = watch.token.encode()
        if self._watches.pop(token, None) is not None:
            await self.ask(abi.XS_UNWATCH, watch.path, token + b"\0")

    async def reset_watches(self):
        """Have the server forget all watches and transactions of this guest."""
        await self.request(abi.XS_RESET_WATCHES, b"\0", "reset_watches")
        for watch in self._watches.values():
            watch.signal.set()
        self._watches = {}

    def watching(self, watch):
        """Whether events of a watch can still come."""
        return self._watches.get(watch.token.encode()) is watch

    # Transactions.

    def transaction(self):
        """A transaction for `async with`: committed at the end, aborted by an exception."""
        return Transaction(self)

    async def transact(self, work, tries=TRIES):
        """Do work(transaction) until its transaction is committed. Returns what it returns.

        work: an async function, called again when another's change came in between (EAGAIN).
        """
        for _ in range(tries):
            try:
                async with self.transaction() as transaction:
                    return await work(transaction)
            except XenstoreError as e:
                if e.code != "EAGAIN":
                    raise
        raise XenstoreError("transaction, %d times" % tries, "EAGAIN")


def transaction_id(answer):
    """The number that a TRANSACTION_START is answered with. Raises XenError."""
    tx_id = reply_number(answer, "transaction_start")
    if not 0 < tx_id < 1 << 32:
        raise XenError("xenstore transaction_start: %d is no transaction" % tx_id)
    return tx_id


class Transaction(NodeOperations):
    """The operations on nodes, as one change. Made by Xenstore.transaction()."""

    def __init__(self, store):
        super().__init__()
        self._store = store

    async def request(self, type, payload, what, tx_id=0, timeout=TIMEOUT):
        return await self._store.request(type, payload, what, self.tx_id, timeout)

    async def __aenter__(self):
        answer = await self._store.request(abi.XS_TRANSACTION_START, b"\0", "transaction_start")
        self.tx_id = transaction_id(answer)
        return self

    async def __aexit__(self, kind, error, trace):
        if kind is None:
            await self.request(abi.XS_TRANSACTION_END, b"T\0", "transaction_end")
        else:
            # Not waited for: whoever is being cancelled cannot wait.
            self._store.post(abi.XS_TRANSACTION_END, b"F\0", self.tx_id)
        return False
