"""The requests of the xenstore client about domains, and to the server itself.

Base of client.Xenstore, which has request(). Most of them are for domain 0: a guest gets EACCES, or
ENOSYS where the server does not know the request.
Source: docs/misc/xenstore.txt.
"""

from .. import abi
from ..errors import XenError
from ..text import printable
from . import wire
from .nodes import reply_number


class Domains:
    """The requests about domains. Raise as request(); XenError when an answer makes no sense."""

    async def _word(self, kind, what, *words):
        """Send a request of words, each with its NUL. Returns the reply's payload."""
        payload = b"".join(str(word).encode() + b"\0" for word in words)
        return await self.request(kind, payload, " ".join([what] + [str(word) for word in words]))

    async def get_domain_path(self, domid):
        """Return the path that a domain's relative paths begin with."""
        answer = await self._word(abi.XS_GET_DOMAIN_PATH, "get_domain_path", domid)
        return printable(answer.rstrip(b"\0"))

    async def is_domain_introduced(self, domid):
        """Return whether the server serves a domain's ring."""
        answer = await self._word(abi.XS_IS_DOMAIN_INTRODUCED, "is_domain_introduced", domid)
        if answer not in (b"T\0", b"F\0"):
            raise XenError("xenstore is_domain_introduced: T or F expected, %r found" % answer[:40])
        return answer == b"T\0"

    async def introduce(self, domid, gfn, port):
        """Have the server serve a domain's ring. Privileged."""
        await self._word(abi.XS_INTRODUCE, "introduce", domid, gfn, port)

    async def release(self, domid):
        """Have the server let a domain's ring go. Privileged."""
        await self._word(abi.XS_RELEASE, "release", domid)

    async def resume(self, domid):
        """Have @releaseDomain fire again for a domain that was shut down. Privileged."""
        await self._word(abi.XS_RESUME, "resume", domid)

    async def set_target(self, domid, target):
        """Give a domain all the rights that another has. Privileged."""
        await self._word(abi.XS_SET_TARGET, "set_target", domid, target)

    async def control(self, *words):
        """Send the server a command, such as control("check"). Returns bytes. Privileged."""
        return await self._word(abi.XS_CONTROL, "control", *words)

    async def get_feature(self, domid=None):
        """Return the server_features offered to us, or, privileged, to a domain."""
        words = () if domid is None else (domid,)
        return reply_number(
            await self._word(wire.XS_GET_FEATURE, "get_feature", *words), "get_feature"
        )

    async def set_feature(self, domid, value):
        """Choose the server_features of a domain that is not yet introduced. Privileged."""
        await self._word(wire.XS_SET_FEATURE, "set_feature", domid, value)

    async def get_quota(self, name=None, domid=None):
        """Return a quota of a domain or of all, int; without a name, the names. Privileged."""
        if name is None:
            answer = await self._word(wire.XS_GET_QUOTA, "get_quota")
            return printable(answer.rstrip(b"\0")).split()
        words = (name,) if domid is None else (domid, name)
        return reply_number(await self._word(wire.XS_GET_QUOTA, "get_quota", *words), "get_quota")

    async def set_quota(self, name, value, domid=None):
        """Set a quota of a domain, or the one that new domains get. Privileged."""
        words = (name, value) if domid is None else (domid, name, value)
        await self._word(wire.XS_SET_QUOTA, "set_quota", *words)
