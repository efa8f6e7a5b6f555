"""One client of the store, without I/O: bytes in, bytes out.

Made by the server for each domain; a transport feeds it what came and sends what take() gives.
Every request gets exactly one reply with its req_id and tx_id; watch events go out with both 0. A
packet that breaks a limit is the client's fault: receive() raises RingCorrupt, and the transport
ends the connection. Source: Xen docs/misc/xenstore.txt; xen/include/public/io/xs_wire.h.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from xenpv import abi
from xenpv.xs_wire import Packet, Parser, strings

from .tree import DOM0, Change, Perms, StoreError, Transaction, Tree, check_path, may

if TYPE_CHECKING:
    from .server import Xenstored

OK = b"OK\0"


@dataclass
class Watch:
    """path: absolute; given: as the client wrote it, which is how it hears of it."""

    path: str
    given: str
    token: bytes


class Connection:
    def __init__(self, server: Xenstored, domid: int) -> None:
        self.server = server
        self.domid = domid
        self.home = f"/local/domain/{domid}"
        self.requests: list[Packet] = []  # all that came, for tests to look at
        self.reset()

    def reset(self) -> None:
        """Forget all of it: parts of packets, replies, watches, transactions."""
        self._parser = Parser()
        self._out: list[bytes] = []
        self._started = False
        self.watches: list[Watch] = []
        self.transactions: dict[int, Transaction] = {}
        self._next_transaction = 1

    # Bytes.

    def receive(self, data: bytes) -> None:
        """Take bytes of the stream and answer whatever is whole. Raises RingCorrupt."""
        self._parser.feed(data)
        packet = self._parser.next()
        while packet is not None:
            self.requests.append(packet)
            self._answer(packet)
            packet = self._parser.next()

    def half_received(self) -> bool:
        return bool(self._parser.pending())

    def pending(self) -> bool:
        """Whether there is something to send."""
        return bool(self._out)

    def take(self, limit: int) -> bytes:
        """Up to limit bytes to send next; drop() them when they are on their way."""
        return self._out[0][:limit] if self._out else b""

    def drop(self, count: int) -> None:
        """So many bytes of what take() gave were sent."""
        self._out[0] = self._out[0][count:]
        self._started = bool(self._out[0])
        if not self._started:
            self._out.pop(0)

    def shuffle(self, choose: Callable[[int], int]) -> None:
        """Send another whole packet first: replies may come in any order. choose: n -> 0..n-1"""
        first = 1 if self._started else 0
        if len(self._out) > first:
            self._out.insert(first, self._out.pop(first + choose(len(self._out) - first)))

    # Requests.

    def _answer(self, packet: Packet) -> None:
        handler = HANDLERS.get(packet.type)
        try:
            if handler is None:
                raise StoreError("ENOSYS")
            payload, kind = handler(self, packet), packet.type
            if len(payload) > abi.XENSTORE_PAYLOAD_MAX:
                raise StoreError("E2BIG")
        except StoreError as error:
            payload, kind = error.code.encode() + b"\0", abi.XS_ERROR
        self._out.append(Packet(kind, packet.req_id, packet.tx_id, payload).encode())
        if packet.type == abi.XS_WATCH and kind == abi.XS_WATCH:
            watch = self.watches[-1]
            self._event(watch.given, watch)
        self.server.fire()

    def _tree(self, packet: Packet) -> Tree:
        if packet.tx_id == 0:
            return self.server.tree
        if packet.tx_id not in self.transactions:
            raise StoreError("ENOENT")
        return self.transactions[packet.tx_id]

    def _words(self, packet: Packet, count: int) -> list[bytes]:
        """Exactly `count` strings, each with its NUL."""
        words = strings(packet.payload)
        if len(words) != count or not packet.payload.endswith(b"\0"):
            raise StoreError("EINVAL")
        return words

    def _path(self, raw: bytes) -> str:
        """The absolute path that the client means."""
        try:
            given = raw.decode("ascii")
        except UnicodeDecodeError:
            raise StoreError("EINVAL") from None
        if given.startswith("/"):
            return check_path(given)
        if not 0 < len(given) <= abi.XENSTORE_REL_PATH_MAX:
            raise StoreError("EINVAL")
        return check_path(f"{self.home}/{given}")

    def _one_path(self, packet: Packet) -> str:
        return self._path(self._words(packet, 1)[0])

    def _read(self, packet: Packet) -> bytes:
        return self._tree(packet).read(self.domid, self._one_path(packet))

    def _write(self, packet: Packet) -> bytes:
        raw, nul, value = packet.payload.partition(b"\0")
        if not nul:
            raise StoreError("EINVAL")
        self._tree(packet).write(self.domid, self._path(raw), value)
        return OK

    def _mkdir(self, packet: Packet) -> bytes:
        self._tree(packet).mkdir(self.domid, self._one_path(packet))
        return OK

    def _rm(self, packet: Packet) -> bytes:
        self._tree(packet).rm(self.domid, self._one_path(packet))
        return OK

    def _directory(self, packet: Packet) -> bytes:
        names = self._tree(packet).directory(self.domid, self._one_path(packet))
        return b"".join(name.encode() + b"\0" for name in names)

    def _get_perms(self, packet: Packet) -> bytes:
        perms = self._tree(packet).get_perms(self.domid, self._one_path(packet))
        return b"".join(f"{letter}{who}".encode() + b"\0" for letter, who in perms)

    def _set_perms(self, packet: Packet) -> bytes:
        words = strings(packet.payload)
        if len(words) < 2:
            raise StoreError("EINVAL")
        self._tree(packet).set_perms(self.domid, self._path(words[0]), parse_perms(words[1:]))
        return OK

    def _get_domain_path(self, packet: Packet) -> bytes:
        (word,) = self._words(packet, 1)
        if not word.isdigit():
            raise StoreError("EINVAL")
        return b"/local/domain/" + word + b"\0"

    def _watch(self, packet: Packet) -> bytes:
        raw, token = self._words(packet, 2)
        special = raw.startswith(b"@")
        path = raw.decode("ascii", "replace") if special else self._path(raw)
        watch = Watch(path, raw.decode("ascii"), token)
        if any((w.path, w.token) == (path, token) for w in self.watches):
            raise StoreError("EEXIST")
        self.watches.append(watch)
        return OK

    def _unwatch(self, packet: Packet) -> bytes:
        raw, token = self._words(packet, 2)
        for watch in self.watches:
            if (watch.given.encode(), watch.token) == (raw, token):
                self.watches.remove(watch)
                return OK
        raise StoreError("ENOENT")

    def _reset_watches(self, packet: Packet) -> bytes:
        self.watches = []
        self.transactions = {}
        return OK

    def _transaction_start(self, packet: Packet) -> bytes:
        if packet.tx_id:
            raise StoreError("EBUSY")
        number = self._next_transaction
        self._next_transaction += 1
        self.transactions[number] = Transaction(self.server.tree)
        return b"%d\0" % number

    def _transaction_end(self, packet: Packet) -> bytes:
        (word,) = self._words(packet, 1)
        if word not in (b"T", b"F"):
            raise StoreError("EINVAL")
        transaction = self.transactions.pop(packet.tx_id, None)
        if transaction is None:
            raise StoreError("ENOENT")
        if word == b"T":
            transaction.commit()
        return OK

    def _privileged(self, packet: Packet) -> bytes:
        raise StoreError("EACCES" if self.domid != DOM0 else "ENOSYS")

    # Watch events.

    def changed(self, change: Change) -> None:
        """Queue events for the watches that a change of the tree concerns."""
        if not may(change.perms, self.domid, "r"):
            return
        for watch in self.watches:
            base = watch.path.rstrip("/")
            if change.path == watch.path or change.path.startswith(base + "/"):
                self._event(watch.given + change.path[len(watch.path) :], watch)
            elif watch.path in change.removed:
                self._event(watch.given, watch)

    def _event(self, path: str, watch: Watch) -> None:
        payload = path.encode() + b"\0" + watch.token + b"\0"
        self._out.append(Packet(abi.XS_WATCH_EVENT, 0, 0, payload).encode())


def parse_perms(words: list[bytes]) -> Perms:
    """("r1", ...) of the wire to pairs. Raises StoreError EINVAL."""
    perms = []
    for word in words:
        letter, number = word[:1].decode("ascii", "replace"), word[1:]
        if letter not in "nrwb" or not number.isdigit():
            raise StoreError("EINVAL")
        perms.append((letter, int(number)))
    return tuple(perms)


HANDLERS: dict[int, Callable[[Connection, Packet], bytes]] = {
    abi.XS_READ: Connection._read,
    abi.XS_WRITE: Connection._write,
    abi.XS_MKDIR: Connection._mkdir,
    abi.XS_RM: Connection._rm,
    abi.XS_DIRECTORY: Connection._directory,
    abi.XS_GET_PERMS: Connection._get_perms,
    abi.XS_SET_PERMS: Connection._set_perms,
    abi.XS_GET_DOMAIN_PATH: Connection._get_domain_path,
    abi.XS_WATCH: Connection._watch,
    abi.XS_UNWATCH: Connection._unwatch,
    abi.XS_RESET_WATCHES: Connection._reset_watches,
    abi.XS_TRANSACTION_START: Connection._transaction_start,
    abi.XS_TRANSACTION_END: Connection._transaction_end,
    abi.XS_INTRODUCE: Connection._privileged,
    abi.XS_RELEASE: Connection._privileged,
    abi.XS_SET_TARGET: Connection._privileged,
    abi.XS_RESUME: Connection._privileged,
    abi.XS_CONTROL: Connection._privileged,
}
