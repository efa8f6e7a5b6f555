"""The xenstore client: all operations, many requests in flight, watches, transactions.

Used by xenbus, the firmware and host programs, over any transport: the ring in a guest, a stream on
a host. One task moves bytes both ways; each caller waits for its own reply, with a deadline. Rules:
a message may be larger than the ring; the reply to a caller that was cancelled is dropped; a fault
of the server ends the connection, every caller gets the reason, and connect() may be called again.
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
# When no byte has moved for so long, the server is told again: an event may have been lost.
TELL_AGAIN = SECOND
# When memory has run out, the same step is tried again after this.
BREATHER = SECOND // 100
# After so many bytes other tasks have a turn: a server that never stops sending stops no deadline.
UNINTERRUPTED = 16 * abi.XENSTORE_RING_SIZE
TRIES = 16
RESETS_WATCHES = "control/platform-feature-xs_reset_watches"


class _Caller:
    """A request and the task that waits for its reply.

    req_id: None while it stands in the line; fault: why its connection has ended; gone: nobody
    waits any more, but the transaction that the reply begins must be ended.
    """

    def __init__(self, kind, tx_id, payload):
        self.kind = kind
        self.tx_id = tx_id
        self.payload = payload
        self.req_id = None
        self.reply = None
        self.fault = None
        self.gone = False
        self.signal = Signal()


class Xenstore(NodeOperations, Domains):
    """A client of one xenstore server.

    Args:
        loop: Loop.
        transport: ring.RingTransport or another with the same methods.

    Attributes: watches, by their tokens; age, how often it was suspended, with which transactions
    end; gate, None, or while it is suspended the Signal of its end.
    """

    def __init__(self, loop, transport):
        super().__init__()
        self.loop = loop
        self.transport = transport
        self._session = None
        self.watches = {}
        self._line = []
        self._fault = "not connected"
        self._pump = None
        self._ended = Signal()
        self._tokens = 0
        self._token = ""
        self.age = 0
        self.gate = None

    async def connect(self):
        """Take the transport over, and forget watches and transactions of a crashed kernel.

        Raises: NoXenstore when there is no connection to be had; Timeout; RingCorrupt.
        """
        if self._pump is not None:
            self._pump.cancel()
            self._end(XenError("xenstore: the connection was made anew"))
        await self.begin()
        if self.transport.stale and await self.read_text(RESETS_WATCHES, "0") == "1":
            await self.reset_watches()

    async def begin(self):
        """Take the transport over and begin a session. Raises NoXenstore, RingCorrupt."""
        try:
            await self.transport.open()
        except RingCorrupt as e:
            raise RingCorrupt("%s; %s" % (e, self.transport.state()))
        # Far from the ids of a crashed kernel, so that late replies to it match nothing.
        first = (self.loop.now() & 0x3FFFFFFF) | 0x40000000
        self._session = Session(first)
        self._token = "pv%x-" % first
        self._line = []
        # Taken from the transport and from the session, but not yet handed on.
        self._came = b""
        self._event = None
        self._moved_at = self.loop.now()
        self._fault = None
        self._pump = self.loop.spawn(self._move())

    def connected(self):
        """Return whether requests can be sent."""
        return self._fault is None

    def fault(self):
        """Return why requests cannot be sent, None if they can."""
        return self._fault

    async def ended(self):
        """Wait until the connection has ended. Returns why."""
        while self._fault is None:
            await self._ended.wait(None)
        return self._fault

    async def close(self):
        """Leave the transport to the next client: nothing in flight, no watch, no transaction.

        Raises: XenError when the server does not do its part; the client is closed all the same.
        """
        if self._pump is None:
            return
        try:
            if self._fault is None and not self.transport.resets():
                for watch in list(self.watches.values()):
                    await watch.close()
            await self.answered()
        finally:
            self.stop("xenstore: the connection was closed")
            await self.transport.close()

    async def answered(self):
        """Wait until nothing is in line or in flight, for TIMEOUT at most."""
        deadline = self.loop.now() + TIMEOUT
        while self._fault is None and self.loop.now() < deadline:
            if not (self._session.flying() or self._line):
                return
            await self.loop.sleep(SECOND // 1000)

    def stop(self, why):
        """End the session; all who wait for a reply get the reason."""
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        self._fault = why
        self._give_up(why)

    async def passed(self):
        """Wait while it is suspended."""
        while self.gate is not None:
            await self.gate.wait(None)

    # Moving bytes.

    async def _move(self):
        """Move bytes both ways until the connection ends."""
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
        """Move the bytes that can be moved now. Returns how many."""
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
        """Give the session the requests that it has room for, in the order in which they came."""
        session = self._session
        while self._line and session.fits(self._line[0].payload):
            caller = self._line[0]
            caller.req_id = session.request(caller.kind, caller.tx_id, caller.payload, caller)
            self._line.pop(0)

    def _deliver(self):
        """Give replies to their callers, and watch events to their watches."""
        self._event = self._event or self._session.event()
        while self._event is not None:
            event = self._event
            if isinstance(event, WatchEvent):
                watch = self.watches.get(event.token)
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
        """End the connection: all who wait get the reason."""
        if self._fault is None:
            self._fault = "%s; %s" % (fault, self.transport.state())
        self._give_up(self._fault)
        for watch in self.watches.values():
            watch.signal.set()
        self.watches = {}
        self._ended.set()

    def _give_up(self, why):
        """Tell all who wait for a reply why none comes."""
        waiting = self._line + (self._session.owners() if self._session is not None else [])
        for caller in waiting:
            caller.fault = why
            caller.signal.set()
        self._line = []

    def _alive(self):
        if self._fault is not None:
            raise RingCorrupt(self._fault)

    def _late(self, what, timeout):
        return Timeout(
            "xenstore %s: no reply within %d ms; %s"
            % (what, timeout // 1000000, self.transport.state())
        )

    async def request(self, kind, payload, what, tx_id=0, timeout=TIMEOUT):
        """Send one request and wait for its reply.

        Args:
            kind: XS_*.
            payload: bytes.
            what: the request in words, for messages.
            tx_id: the transaction it belongs to, 0 for none.
            timeout: ns.

        Returns: the reply's payload, bytes.
        Raises: XenstoreError with the server's error; Timeout; RingCorrupt when the connection is
        over.
        """
        await self.passed()
        return await self.send(kind, payload, what, tx_id, timeout)

    async def send(self, kind, payload, what, tx_id=0, timeout=TIMEOUT):
        """Do as request(), also while it is suspended."""
        caller = self._enqueue(kind, tx_id, payload)
        try:
            await self._reply(caller, what, timeout)
        finally:
            if caller.reply is None:
                self._leave(caller)
        if caller.reply.error is not None:
            raise XenstoreError(what, caller.reply.error)
        return caller.reply.payload

    def _enqueue(self, kind, tx_id, payload):
        self._alive()
        if len(payload) > abi.XENSTORE_PAYLOAD_MAX:
            raise ValueError(
                "xenstore payload of %d bytes is over %d" % (len(payload), abi.XENSTORE_PAYLOAD_MAX)
            )
        caller = _Caller(kind, tx_id, payload)
        self._line.append(caller)
        self.transport.signal.set()
        return caller

    def _leave(self, caller):
        """Give up a reply that nobody waits for any more."""
        if caller.fault is not None:
            return
        if caller.req_id is not None:
            if caller.kind == abi.XS_TRANSACTION_START:
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

    def post(self, kind, payload, tx_id=0):
        """Send a request whose reply nobody waits for, as soon as there is room."""
        if self._fault is None:
            self._enqueue(kind, tx_id, payload)

    # Watches.

    async def watch(self, path, depth=None, limit=64):
        """Watch a path and everything below it, or @introduceDomain, or @releaseDomain.

        Args:
            path: str.
            depth: how many levels below path count, where the server offers that; None: all.
            limit: how many events the Watch holds until they are taken.

        Returns: a Watch; its first event tells that it is set.
        Raises: XenstoreError, Timeout, RingCorrupt.
        """
        self._tokens += 1
        watch = Watch(self, path, self._token + str(self._tokens), limit)
        rest = watch.token.encode() + b"\0"
        if depth is not None:
            rest += str(depth).encode() + b"\0"
        token = watch.token.encode()
        await self.passed()
        self.watches[token] = watch
        watch.rest = rest
        try:
            await self.ask(abi.XS_WATCH, path, rest)
        except (XenstoreError, ValueError):
            self.watches.pop(token, None)
            raise
        except BaseException:
            # The caller was cancelled, or gave up, while the watch was being set.
            if self.watches.pop(token, None) is not None:
                self.post(abi.XS_UNWATCH, path.encode() + b"\0" + token + b"\0")
            raise
        return watch

    async def unwatch(self, watch):
        """End a watch; no event of it comes any more. Called by Watch.close()."""
        await self.passed()
        token = watch.token.encode()
        if self.watches.pop(token, None) is not None:
            await self.ask(abi.XS_UNWATCH, watch.path, token + b"\0")

    async def reset_watches(self):
        """Have the server forget all watches and transactions of this guest."""
        await self.request(abi.XS_RESET_WATCHES, b"\0", "reset_watches")
        for watch in self.watches.values():
            watch.signal.set()
        self.watches = {}

    def watching(self, watch):
        """Return whether events of a watch can still come."""
        return self.watches.get(watch.token.encode()) is watch

    # Transactions.

    def transaction(self):
        """Return a transaction for `async with`: committed at its end, aborted by an exception."""
        return Transaction(self)

    async def transact(self, work, tries=TRIES):
        """Do work in a transaction, again if another's change came in between (EAGAIN).

        Args:
            work: an async function of a Transaction.
            tries: how often it is called at most.

        Returns: what work returned in the transaction that was committed.
        Raises: what work raises; XenstoreError EAGAIN after the last try; Timeout; RingCorrupt.
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
    """Return the number with which a TRANSACTION_START is answered. Raises XenError."""
    tx_id = reply_number(answer, "transaction_start")
    if not 0 < tx_id < 1 << 32:
        raise XenError("xenstore transaction_start: %d is no transaction" % tx_id)
    return tx_id


class Transaction(NodeOperations):
    """The operations on nodes, made as one change. Made by Xenstore.transaction()."""

    def __init__(self, store):
        super().__init__()
        self._store = store
        self._age = 0

    async def request(self, kind, payload, what, tx_id=0, timeout=TIMEOUT):
        """Send a request of this transaction; as Xenstore.request(), EAGAIN after a suspension."""
        await self._store.passed()
        if self._age != self._store.age:
            raise XenstoreError(what, "EAGAIN")
        return await self._store.send(kind, payload, what, self.tx_id, timeout)

    async def __aenter__(self):
        answer = await self._store.request(abi.XS_TRANSACTION_START, b"\0", "transaction_start")
        self._age = self._store.age
        self.tx_id = transaction_id(answer)
        return self

    async def __aexit__(self, kind, error, trace):
        if kind is None:
            await self.request(abi.XS_TRANSACTION_END, b"T\0", "transaction_end")
        elif self._age == self._store.age:
            # Not waited for: the error that aborts it is what the caller needs to get.
            self._store.post(abi.XS_TRANSACTION_END, b"F\0", self.tx_id)
        return False
