"""The command line of the image: what to do, on which disk, and how to end.

Read once by main. It comes from `kexec --command-line`, from a PVH guest's `cmdline=`, or, where
there is none, from module 0 if that is a text beginning with "#pvdump". Options of other programs
are passed over.

    elfcorehdr=[SIZE@]ADDRESS   where the crashed kernel described its memory; kexec adds it
    pvdump.disk=xvdb            the dump target; several, xvdb,xvdc: the first that takes the dump
    pvdump.then=reboot          afterwards: reboot, poweroff or halt
    pvdump.run=dump             dump, or check: try xenstore and the disks
    pvdump.fault=page           fail on purpose: page, ud or python
"""

import hw
from xenpv.block import vdev
from xenpv.errors import BadDiskName
from xenpv.text import decimal, hexadecimal, printable

from .errors import OptionError
from .oldmem import ADDRESS_MAX

FAULTS = ("page", "ud", "python")
CONFIG_MAGIC = b"#pvdump"
CONFIG_MAX = 2048
SUFFIXES = {"K": 10, "M": 20, "G": 30}


class Options:
    """The options on the command line.

    Attributes:
        elfcorehdr: physical address, None where there is no usable one.
        names: of disks, in order of preference, as far as they are usable.
        any_disk: whether the command line names no disk at all, usable or not.
        then: the end action.
        run: the mode.
        fault: how to fail on purpose, or None.
        problems: what could not be used, one message each.
    """

    def __init__(self):
        self.elfcorehdr = None
        self.names = []
        self.any_disk = True
        self.then = "reboot"
        self.run = "dump"
        self.fault = None
        self.problems = []

    def disks(self):
        """Return the names in order of preference; none: the first disk that takes the dump.

        Raises OptionError where disks are named and none of the names is usable: no dump may go to
        a disk that nobody named.
        """
        if not self.names and not self.any_disk:
            raise OptionError("pvdump.disk= names no usable disk: a name like xvdb expected")
        return self.names


def text(cmdline, modules):
    """Return the command line in force, printable.

    Args:
        cmdline: bytes that came in through the door.
        modules: (physical address, bytes) of each module; the first may hold a configuration, which
            counts where the door had no command line.
    """
    raw = cmdline
    if not raw.strip() and modules:
        addr, length = modules[0]
        raw = bytes(hw.mem(addr, min(length, CONFIG_MAX)))
        if raw[: len(CONFIG_MAGIC)] != CONFIG_MAGIC:
            return ""
        raw = b" ".join(line for line in raw.split(b"\n") if line[:1] != b"#")
    return printable(raw, " ")


def parse(line, door, modes, ends):
    """Read the options on a command line.

    What cannot be used is noted in `problems`, not raised: the end action must be known before
    anything is refused.

    Args:
        line: str.
        door: "pvh" or "bzimage", how the image was entered.
        modes: names that pvdump.run= may have.
        ends: names that pvdump.then= may have.
    """
    options = Options()
    # A firmware that reboots because it has nothing to do would do so for ever.
    if door == "pvh":
        options.then = "poweroff"
    for word in line.split():
        key, _, value = word.partition("=")
        try:
            _set(options, key, value, modes, ends)
        except OptionError as e:
            options.problems.append(str(e))
    return options


def _set(options, key, value, modes, ends):
    if key == "elfcorehdr":
        options.elfcorehdr = address(value)
    elif key == "pvdump.disk":
        options.any_disk = False
        for name in value.split(","):
            try:
                vdev.number(name)
            except BadDiskName as e:
                options.problems.append("%s=%s" % (key, e))
                continue
            if name not in options.names:
                options.names.append(name)
    elif key == "pvdump.then":
        options.then = _choice(key, value, ends)
    elif key == "pvdump.run":
        options.run = _choice(key, value, modes)
    elif key == "pvdump.fault":
        options.fault = _choice(key, value, FAULTS)
    elif key[:7] == "pvdump.":
        raise OptionError("%s is no option of pvdump" % key[:40])


def _choice(key, value, allowed):
    if value not in allowed:
        raise OptionError("%s=%s: %s expected" % (key, value[:40], ", ".join(sorted(allowed))))
    return value


def address(value):
    """Read the address in elfcorehdr=[SIZE@]ADDRESS, hexadecimal with 0x or decimal; K, M, G count.

    Raises OptionError. Source: Linux Documentation/admin-guide/kernel-parameters.txt.
    """
    number = value.split("@")[-1]
    shift = SUFFIXES.get(number[-1:].upper(), 0)
    if shift:
        number = number[:-1]
    most = (ADDRESS_MAX - 1) >> shift
    if number[:2] in ("0x", "0X"):
        found = hexadecimal(number[2:], 1, most)
    else:
        found = decimal(number, 1, most)
    if found is None:
        raise OptionError("elfcorehdr=%s is no usable address" % value[:40])
    return found << shift
