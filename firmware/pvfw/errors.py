"""The errors after which no dump, or no whole dump, is written; each is one console line."""

from xenpv.errors import XenError


class DumpError(Exception):
    """The dump cannot be made."""


class OptionError(DumpError):
    """The command line says something that cannot be done."""


class ConfigError(DumpError):
    """The configuration blob cannot be used."""


class CoreError(DumpError):
    """The crashed kernel's description of its memory cannot be used."""


class TargetRefused(DumpError):
    """The disk is not one that may be written; nothing on it was changed."""


class NoTarget(TargetRefused):
    """No disk was named, and none that is there takes the dump."""


class NoSuperblock(TargetRefused):
    """There is no superblock where a target begins."""


class OtherVersion(TargetRefused):
    """The disk has a whole superblock of a version that is not known here."""


def reason(error):
    """Return one line that says why something failed, for the console, xenstore and the disk."""
    if isinstance(error, (DumpError, XenError)):
        return str(error)
    kind = "out of memory" if isinstance(error, MemoryError) else type(error).__name__
    return "%s: %s" % (kind, error)


def withheld(error):
    """Return what may be told of an error where no text of the crashed kernel may leave in clear.

    Returns: the error itself where its text is ours or Xen's, else another one in its place.
    """
    if isinstance(error, (XenError, MemoryError)):
        return error
    if isinstance(error, DumpError) and not isinstance(error, CoreError):
        return error
    return DumpError("%s; no more is told, as the dump was to be encrypted" % type(error).__name__)
