"""The request that a crashed kernel left half written in the ring, and the bytes that complete it.

Used by ring.py when a ring is taken over as it is; without I/O. The server waits for the rest of
that request, and takes whatever comes next for it. The last 1024 bytes of the stream are still in
the ring, so the request's header is looked for there. Rule: a server must survive what is sent. C
xenstored 4.17 aborts on a request of one path whose payload is no single string with one NUL, at
its end; so a path that was cut gets characters that no path may have, which every server answers
with EINVAL, and one NUL as its last byte. NULs alone are sent only where no such request can be.
Source: docs/misc/xenstore.txt; tools/xenstored/core.c (onearg, get_node_canonicalized).
"""

import struct

from .. import abi
from ..text import DECIMAL, printable
from . import wire

HEADER_SIZE = abi.XSD_SOCKMSG_SIZEOF
# Requests whose payload is one path. A server may not survive a malformed one.
ONE_PATH = (abi.XS_DIRECTORY, abi.XS_READ, abi.XS_GET_PERMS, abi.XS_MKDIR, abi.XS_RM)
# Requests whose payload begins with a path, and how many strings they have at least.
WITH_PATH = {
    abi.XS_WATCH: 2,
    abi.XS_UNWATCH: 2,
    abi.XS_WRITE: 1,
    abi.XS_SET_PERMS: 2,
    abi.XS_DIRECTORY_PART: 2,
}
# Requests of a guest without a path: their payload is one string.
WORD = (
    abi.XS_TRANSACTION_START,
    abi.XS_TRANSACTION_END,
    abi.XS_GET_DOMAIN_PATH,
    abi.XS_IS_DOMAIN_INTRODUCED,
    abi.XS_RESET_WATCHES,
)
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PATH_CHARACTERS = LETTERS + LETTERS.upper() + DECIMAL + "-/_@"
# In no path.
FILLER = b"?"


def completion(window):
    """Find the last request of a stream, and make the bytes that complete it.

    Args:
        window: the last bytes of the stream, all of them or as many as the ring still has.

    Returns: the bytes to send, b"" where the last request is whole, None where it cannot be found.
    """
    if len(window) < HEADER_SIZE:
        return _rest_of_header(window)
    for at in range(len(window) - HEADER_SIZE + 1):
        rest = _follow(window, at)
        if rest is not None:
            return rest
    return _rest_of_path(window)


def takes_nuls(window):
    """Return whether NULs may complete a request that completion() does not find.

    They may not where the window can be the inside of a request of one path: behind the last bytes
    of its header, if any, there is no NUL. Nor may they where the window's last bytes can be the
    first ones of such a request's header.
    """
    inside = window[HEADER_SIZE - 1 :]
    if inside and b"\0" not in inside:
        return False
    for size in range(1, min(HEADER_SIZE, len(window) + 1)):
        tail = window[len(window) - size :]
        if tail[0] in ONE_PATH and not any(tail[1:4]):
            return False
    return True


def _follow(window, at):
    """Follow requests from `at` to the end. Returns the rest of the last; None for no request."""
    while True:
        head = window[at : at + HEADER_SIZE]
        if len(head) < HEADER_SIZE:
            return _rest_of_header(head)
        kind, _, _, length = struct.unpack(wire.HEADER, head)
        if not 0 < length <= abi.XENSTORE_PAYLOAD_MAX:
            return None
        at += HEADER_SIZE
        payload = window[at : at + length]
        missing = length - len(payload)
        if not _plausible(kind, payload, missing):
            return None
        if missing:
            return _fill(missing)
        at += length


def _plausible(kind, payload, missing):
    """Return whether a payload, of which the last bytes may be missing, is one of its kind."""
    first, nul, others = payload.partition(b"\0")
    if kind in ONE_PATH or kind in WORD:
        fits = not others and (nul == b"") == (missing > 0)
    elif kind in WITH_PATH:
        fits = missing > 0 or payload.count(b"\0") >= WITH_PATH[kind]
    else:
        fits = False
    return fits and (kind in WORD or not payload or _is_path(first))


def _is_path(raw):
    return len(raw) > 0 and all(c in PATH_CHARACTERS for c in printable(raw))


def _fill(count):
    """Return `count` bytes that end any payload with its only new NUL as the last byte."""
    return FILLER * (count - 1) + b"\0"


def _rest_of_header(head):
    """Complete less than a header, and give the request a payload that is no path."""
    if not head:
        return b""
    if head[0] not in ONE_PATH and head[0] not in WITH_PATH and head[0] not in WORD:
        return None
    if any(head[1:4]):
        return None
    known = head[abi.XSD_SOCKMSG_LEN :]
    length = int.from_bytes(known, "little")
    if not length:
        # The shortest payload that is no path, if no byte of the length is known.
        length = 2 if not known else 1 << (8 * len(known))
    if length > abi.XENSTORE_PAYLOAD_MAX:
        return None
    whole = head + bytes(abi.XSD_SOCKMSG_LEN - len(head)) if not known else head[: -len(known)]
    whole += struct.pack("<I", length)
    return whole[len(head) :] + _fill(length)


def _rest_of_path(window):
    """Complete what may be a request of one path although its path is none. Returns None if not."""
    for at in range(len(window) - HEADER_SIZE + 1):
        kind, _, _, length = struct.unpack_from(wire.HEADER, window, at)
        if kind not in ONE_PATH or length > abi.XENSTORE_PAYLOAD_MAX:
            continue
        payload = window[at + HEADER_SIZE :]
        if len(payload) < length and b"\0" not in payload:
            return _fill(length - len(payload))
    return None
