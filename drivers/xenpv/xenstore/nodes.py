"""The operations on xenstore's nodes, for the client and for its transactions.

Base of client.Xenstore and client.Transaction, which have request(). Rule: a path and a value are
checked before they are sent, because a request over the limits would end the connection; the
server's answer is checked before it is used.
Source: docs/misc/xenstore.txt.
"""

from .. import abi
from ..errors import XenError, XenstoreError
from ..text import decimal, printable
from . import wire

NAMES = {
    abi.XS_DIRECTORY: "directory",
    abi.XS_DIRECTORY_PART: "directory",
    abi.XS_READ: "read",
    abi.XS_GET_PERMS: "get_perms",
    abi.XS_WATCH: "watch",
    abi.XS_UNWATCH: "unwatch",
    abi.XS_WRITE: "write",
    abi.XS_MKDIR: "mkdir",
    abi.XS_RM: "rm",
    abi.XS_SET_PERMS: "set_perms",
}
LETTERS = "nrwb"
DIRECTORY_MAX = 1 << 20
DIRECTORY_TRIES = 8
U64 = (1 << 64) - 1


def number(raw, what):
    """Read the decimal number that a node's value consists of.

    Args:
        raw: bytes.
        what: the request, for the error.

    Returns: the number, a u64. Raises: XenError when there is none.
    """
    found = decimal(raw, 0, U64)
    if found is None:
        raise XenError(
            "xenstore %s: a decimal number expected, '%s' found" % (what, printable(raw[:40]))
        )
    return found


def reply_number(raw, what):
    """Read the number that a reply consists of: as number(), but it may end in a NUL."""
    return number(raw[:-1] if raw[-1:] == b"\0" else raw, what)


async def unless_absent(operation, default):
    """Await an operation on a node. Returns its result, or `default` if there is no such node."""
    try:
        return await operation
    except XenstoreError as e:
        if e.code != "ENOENT":
            raise
        return default


class NodeOperations:
    """The operations on nodes. tx_id: the transaction that they belong to, 0 for none.

    A parameter `default` that is not None is returned where there is no such node; without it
    XenstoreError ENOENT is raised.
    """

    def __init__(self):
        self.tx_id = 0

    async def ask(self, kind, path, rest=b""):
        """Send a request about a path.

        Args:
            kind: one of NAMES.
            path: str.
            rest: the bytes that follow the path's NUL.

        Returns: the reply's payload, bytes.
        Raises: ValueError when the path is none; as request().
        """
        raw = path.encode()
        limit = abi.XENSTORE_ABS_PATH_MAX if raw[:1] == b"/" else abi.XENSTORE_REL_PATH_MAX
        if not 0 < len(raw) <= limit or b"\0" in raw:
            raise ValueError(
                "xenstore path of %d bytes: 1 to %d, no NUL, expected" % (len(raw), limit)
            )
        return await self.request(kind, raw + b"\0" + rest, NAMES[kind] + " " + path)

    async def read(self, path):
        """Return the node's value, bytes."""
        return await self.ask(abi.XS_READ, path)

    async def find(self, path):
        """Return the node's value, bytes, or None if there is no such node."""
        return await unless_absent(self.read(path), None)

    async def read_text(self, path, default=None):
        """Return the node's value, bytes beyond printable ASCII shown as "?"."""
        value = await (self.read(path) if default is None else self.find(path))
        return default if value is None else printable(value)

    async def read_int(self, path, default=None):
        """Return the node's value, a decimal number of a u64. Raises XenError if it is none."""
        value = await (self.read(path) if default is None else self.find(path))
        return default if value is None else number(value, path)

    async def write(self, path, value):
        """Set the node's value; value: str or bytes. Nodes that are missing above it are made."""
        await self.ask(abi.XS_WRITE, path, value.encode() if isinstance(value, str) else value)

    async def mkdir(self, path):
        """Make an empty node, unless it is there."""
        await self.ask(abi.XS_MKDIR, path)

    async def rm(self, path):
        """Remove a node and all below it."""
        await self.ask(abi.XS_RM, path)

    async def directory(self, path, default=None):
        """Return the names of the node's children, a list of str, however many they are."""
        if default is not None:
            return await unless_absent(self.directory(path), default)
        try:
            payload = await self.ask(abi.XS_DIRECTORY, path)
        except XenstoreError as e:
            if e.code != "E2BIG":
                raise
            payload = await self._directory_in_parts(path)
        return [printable(name) for name in wire.strings(payload)]

    async def _directory_in_parts(self, path):
        """Ask for the list in parts; begin anew when the node has changed meanwhile."""
        for _ in range(DIRECTORY_TRIES):
            generation, names = await self._directory_part(path, 0)
            while names[-2:] != b"\0\0" and names != b"\0":
                now, more = await self._directory_part(path, len(names))
                if now != generation:
                    break
                names += more
                if not more or len(names) > DIRECTORY_MAX:
                    raise XenError(
                        "xenstore directory %s: no end after %d bytes" % (path, len(names))
                    )
            else:
                return names[:-1]
        raise XenstoreError(
            "directory %s, begun %d times because it changed" % (path, DIRECTORY_TRIES), "EAGAIN"
        )

    async def _directory_part(self, path, offset):
        """Return (generation, names from a byte offset on); the last part has one NUL more."""
        payload = await self.ask(abi.XS_DIRECTORY_PART, path, str(offset).encode() + b"\0")
        generation, _, names = payload.partition(b"\0")
        return generation, names

    async def get_perms(self, path):
        """Return the permissions, a list of (letter, domid).

        The first is the owner, and its letter holds for all others; the letter is "n", "r", "w" or
        "b": nothing, read, write, both.
        """
        perms = []
        for word in wire.strings(await self.ask(abi.XS_GET_PERMS, path)):
            letter = printable(word[:1])
            if letter not in LETTERS:
                raise XenError("xenstore get_perms %s: '%s' found" % (path, printable(word[:40])))
            perms.append((letter, number(word[1:], "get_perms " + path)))
        return perms

    async def set_perms(self, path, perms):
        """Set the permissions. perms: as from get_perms(), not empty."""
        for letter, _ in perms:
            if len(letter) != 1 or letter not in LETTERS:
                raise ValueError("xenstore permission '%s': n, r, w or b expected" % letter)
        words = b"".join((letter + str(domid)).encode() + b"\0" for letter, domid in perms)
        await self.ask(abi.XS_SET_PERMS, path, words)
