"""The errors of reading a disk for its kernel; each is one line for the console and the menu.

Whatever a disk says ends in what was asked for, in one of these, in an error of the drivers, or in
MemoryError.
"""


class BootError(Exception):
    """What the disk has cannot be read or booted."""


class NotThere(BootError):
    """There is no file of this name."""


class Damaged(BootError):
    """The disk contradicts itself, or leaves the bounds that this firmware has."""


class Unsupported(BootError):
    """The disk needs something that this firmware does not do; the message names it."""


class Exhausted(BootError):
    """The disk has had all the work that it may cause."""


class NotSigned(BootError):
    """There is no signature that counts; the message says why."""
