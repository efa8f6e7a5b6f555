"""The requests: each takes a payload and gives the reply's payload, or an error.

Called by a connection for each packet. The rule is C xenstored's: an unknown type is ENOSYS, a type
of the toolstack is EACCES for all but domain 0, and an unknown transaction is ENOENT, checked in
this order before anything is done. Bytes after the last NUL are ignored where the protocol reserves
them ("?").
Source: Xen docs/misc/xenstore.txt.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from xenpv import abi
from xenpv.xenstore import wire
from xenpv.xenstore.wire import Packet

from . import toolstack
from .domain import DOM0, StoreError
from .nodes import Perms, check_path
from .tree import SPECIAL
from .watches import Watch

if TYPE_CHECKING:
    from .connection import ClientConnection

OK = b"OK\0"
SOME_HOME = re.compile(r"/local/domain/[0-9]{1,5}/")
SPECIAL_WATCH = re.compile(r"@[A-Za-z0-9_@-]+(/[A-Za-z0-9_@-]+)*")


def answer(connection: ClientConnection, packet: Packet) -> bytes:
    """Do a request. Returns the reply's payload. Raises StoreError."""
    if packet.type in toolstack.REQUESTS:
        if connection.domain.domid != DOM0:
            raise StoreError("EACCES")
        connection.tree(packet)
        return toolstack.REQUESTS[packet.type](connection.server, connection.domain, packet)
    if packet.type not in REQUESTS:
        raise StoreError("ENOSYS")
    if packet.type not in WITHOUT_TRANSACTION:
        connection.tree(packet)
    return REQUESTS[packet.type](connection, packet)


# Payloads.


def words(packet: Packet) -> list[bytes]:
    """Return the strings of a payload that end with a NUL."""
    return packet.payload.split(b"\0")[:-1]


def one_word(packet: Packet) -> bytes:
    """Return a payload's only string, which ends with its NUL. Raises StoreError EINVAL."""
    found = words(packet)
    if len(found) != 1 or not packet.payload.endswith(b"\0"):
        raise StoreError("EINVAL")
    return found[0]


def absolute(connection: ClientConnection, raw: bytes) -> str:
    """Return the absolute path for a path of the client's. Raises StoreError EINVAL."""
    try:
        given = raw.decode("ascii")
    except UnicodeDecodeError:
        raise StoreError("EINVAL") from None
    if given.startswith("/"):
        path = given
    elif given and not given.startswith("@"):
        path = f"{connection.domain.home}/{given}"
    else:
        raise StoreError("EINVAL")
    prefix = SOME_HOME.match(path)
    connection.domain.check("path-max", len(path) - (prefix.end() if prefix else 0))
    return check_path(path)


def parse_perms(found: list[bytes]) -> Perms:
    """Return permissions as pairs, from words such as b"r1". Raises StoreError EINVAL."""
    perms = []
    for word in found:
        letter, number = word[:1].decode("ascii", "replace"), word[1:]
        if letter not in tuple("nrwb"):
            raise StoreError("EINVAL")
        perms.append((letter, toolstack.domid(number)))
    return tuple(perms)


# The tree.


def _path(connection: ClientConnection, packet: Packet) -> str:
    return absolute(connection, one_word(packet))


def _read(connection: ClientConnection, packet: Packet) -> bytes:
    return connection.tree(packet).read(connection.domain, _path(connection, packet))


def _write(connection: ClientConnection, packet: Packet) -> bytes:
    raw, nul, value = packet.payload.partition(b"\0")
    if not nul:
        raise StoreError("EINVAL")
    connection.tree(packet).write(connection.domain, absolute(connection, raw), value)
    return OK


def _mkdir(connection: ClientConnection, packet: Packet) -> bytes:
    connection.tree(packet).mkdir(connection.domain, _path(connection, packet))
    return OK


def _rm(connection: ClientConnection, packet: Packet) -> bytes:
    connection.tree(packet).rm(connection.domain, _path(connection, packet))
    return OK


def _directory(connection: ClientConnection, packet: Packet) -> bytes:
    return connection.tree(packet).directory(connection.domain, _path(connection, packet))


def _directory_part(connection: ClientConnection, packet: Packet) -> bytes:
    """Return gencnt|child|child|..., as much as fits; another NUL follows the very last child."""
    found = words(packet)
    if len(found) != 2:
        raise StoreError("EINVAL")
    offset = toolstack.number(found[1])
    path = absolute(connection, found[0])
    gen, listing = connection.tree(packet).directory_part(connection.domain, path)
    head = b"%d\0" % gen
    rest = listing[offset : offset + abi.XENSTORE_PAYLOAD_MAX]
    if len(head) + len(rest) + 1 <= abi.XENSTORE_PAYLOAD_MAX:
        return head + rest + b"\0"
    end = rest.rfind(b"\0", 0, abi.XENSTORE_PAYLOAD_MAX - len(head))
    return head + rest[: end + 1]


def _get_perms(connection: ClientConnection, packet: Packet) -> bytes:
    path = _node(connection, one_word(packet))
    perms = connection.tree(packet).get_perms(connection.domain, path)
    return b"".join(f"{letter}{who}".encode() + b"\0" for letter, who in perms)


def _set_perms(connection: ClientConnection, packet: Packet) -> bytes:
    found = words(packet)
    if len(found) < 2:
        raise StoreError("EINVAL")
    perms = parse_perms(found[1:])
    connection.tree(packet).set_perms(connection.domain, _node(connection, found[0]), perms)
    return OK


def _node(connection: ClientConnection, raw: bytes) -> str:
    """Return a path, or a special name, whose permissions say which domains may watch domains."""
    special = raw.decode("ascii", "replace")
    return special if special in SPECIAL else absolute(connection, raw)


# Watches.


def _watch(connection: ClientConnection, packet: Packet) -> bytes:
    found = words(packet)
    depth = None
    if len(found) == 3 and connection.domain.features & wire.SERVER_FEATURE_WATCHDEPTH:
        depth = toolstack.number(found[2])
    elif len(found) != 2:
        raise StoreError("EINVAL")
    path, token = _watched(connection, found[0]), found[1]
    if (path, token) in connection.watches:
        raise StoreError("EEXIST")
    connection.domain.check("watches", len(connection.watches) + 1)
    skip = len(path) - len(found[0])  # a relative path stays relative in events

    def tell(changed: str) -> None:
        connection.event(changed[skip:], token)

    watch = Watch(connection, path, tell, depth)
    connection.watches[path, token] = watch
    connection.server.watches.add(watch)
    return OK


def first_event(connection: ClientConnection, packet: Packet) -> None:
    """Send the event of a new watch, which comes whether or not the node may be read."""
    raw, token = words(packet)[:2]
    connection.event(raw.decode("ascii"), token)


def _unwatch(connection: ClientConnection, packet: Packet) -> bytes:
    found = words(packet)
    if len(found) != 2:
        raise StoreError("EINVAL")
    watch = connection.watches.pop((_watched(connection, found[0]), found[1]), None)
    if watch is None:
        raise StoreError("ENOENT")
    connection.server.watches.remove(watch)
    return OK


def _watched(connection: ClientConnection, raw: bytes) -> str:
    if not raw.startswith(b"@"):
        return absolute(connection, raw)
    special = raw.decode("ascii", "replace")
    connection.domain.check("path-max", len(special))
    if not SPECIAL_WATCH.fullmatch(special):
        raise StoreError("EINVAL")
    return special


def _reset_watches(connection: ClientConnection, packet: Packet) -> bytes:
    connection.end_watches_and_transactions()
    return OK


# Transactions, and what else a guest may ask.


def _transaction_start(connection: ClientConnection, packet: Packet) -> bytes:
    if packet.tx_id:
        raise StoreError("EBUSY")
    connection.domain.check("transactions", len(connection.transactions) + 1)
    return b"%d\0" % connection.start_transaction()


def _transaction_end(connection: ClientConnection, packet: Packet) -> bytes:
    word = one_word(packet)
    if word not in (b"T", b"F"):
        raise StoreError("EINVAL")
    transaction = connection.transactions.pop(packet.tx_id, None)
    if transaction is None:
        raise StoreError("ENOENT")
    if word == b"T":
        transaction.commit()
    return OK


def _get_domain_path(connection: ClientConnection, packet: Packet) -> bytes:
    return b"/local/domain/%d\0" % toolstack.domid(one_word(packet))


def _get_feature(connection: ClientConnection, packet: Packet) -> bytes:
    found = words(packet)
    if not found:
        return b"%d\0" % connection.domain.features
    if connection.domain.domid != DOM0:
        raise StoreError("EACCES")
    if len(found) > 1:
        raise StoreError("EINVAL")
    return b"%d\0" % connection.server.known(toolstack.domid(found[0])).features


REQUESTS: dict[int, Callable[[ClientConnection, Packet], bytes]] = {
    abi.XS_READ: _read,
    abi.XS_WRITE: _write,
    abi.XS_MKDIR: _mkdir,
    abi.XS_RM: _rm,
    abi.XS_DIRECTORY: _directory,
    abi.XS_DIRECTORY_PART: _directory_part,
    abi.XS_GET_PERMS: _get_perms,
    abi.XS_SET_PERMS: _set_perms,
    abi.XS_WATCH: _watch,
    abi.XS_UNWATCH: _unwatch,
    abi.XS_RESET_WATCHES: _reset_watches,
    abi.XS_TRANSACTION_START: _transaction_start,
    abi.XS_TRANSACTION_END: _transaction_end,
    abi.XS_GET_DOMAIN_PATH: _get_domain_path,
    wire.XS_GET_FEATURE: _get_feature,
}
WITHOUT_TRANSACTION = (abi.XS_WATCH, abi.XS_UNWATCH)  # their tx_id is ignored
