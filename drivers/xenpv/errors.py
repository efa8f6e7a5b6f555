"""The errors of the drivers. Messages say what was expected, what was seen, where, what to do."""


class XenError(Exception):
    """Something has gone wrong between this guest and Xen, or a peer of the guest."""


class HypercallError(XenError):
    """Xen refused a hypercall; `errno` is positive."""

    def __init__(self, what, errno):
        super().__init__("%s: Xen answered errno %d" % (what, errno))
        self.errno = errno


class XenstoreError(XenError):
    """The xenstore server answered a request with an error; `code` is its name, such as ENOENT."""

    def __init__(self, what, code):
        super().__init__("xenstore %s: %s" % (what, code))
        self.code = code


class NoXenstore(XenError):
    """There is no connection to xenstore, and trying again does not bring one."""


class RingCorrupt(XenError):
    """The other end of a ring broke its protocol; the ring is not used any more."""


class BackendError(XenError):
    """A device's backend failed, refused or vanished."""


class Timeout(XenError):
    """A wait has reached its deadline."""


class BadDiskName(XenError):
    """Xen has no device number for a disk's name."""
