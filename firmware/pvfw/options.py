"""The command line and the configuration of the image: what to do, on which disk, how to end.

Read once by main. The command line comes from `kexec --command-line`, from a PVH guest's
`cmdline=`, or, where there is none, from module 0 if that is a text beginning with "#pvdump".
Options of other programs are passed over. The configuration (config.py) is a module too, the one
that `kexec --initrd` loads. Rules: what the command line says counts before what the configuration
says; a configuration that cannot be used is told and ignored.

    elfcorehdr=[SIZE@]ADDRESS   where the crashed kernel described its memory; kexec adds it
    pvdump.disk=xvdb            the dump target; several, xvdb,xvdc: the first that takes the dump
    pvdump.level=31             pages to leave out, as makedumpfile's -d: 0 to 31; or log: the log,
                                notes and stacks alone
    pvdump.compress=zstd        of the pages: zstd or none
    pvdump.recipients=required  write no dump unless the configuration has keys to encrypt it to
    pvdump.then=reboot          afterwards: reboot, poweroff or halt
    pvdump.run=dump             dump, or check: try xenstore and the disks
    pvdump.fault=page           fail on purpose: page, ud or python
"""

from xenpv.block import vdev
from xenpv.errors import BadDiskName
from xenpv.text import decimal, hexadecimal

from . import config, modules
from .errors import ConfigError, OptionError
from .oldmem import ADDRESS_MAX

FAULTS = ("page", "ud", "python")
SUFFIXES = {"K": 10, "M": 20, "G": 30}


class Options:
    """The options in force.

    Attributes:
        config: config.Config, an empty one where there is no usable one.
        elfcorehdr: physical address, None where there is no usable one.
        targets: of config.Target, in order of preference, as far as they are usable.
        any_disk: whether no disk at all is named, usable or not.
        level: the pages to leave out, 0 to 31, as makedumpfile's -d; config.LOG_ONLY: all but the
            stacks.
        compress: whether the dump's pages are compressed.
        encrypted: whether no dump may be written that is not encrypted.
        then: the end action.
        run: the mode.
        fault: how to fail on purpose, or None.
        problems: what could not be used, one message each.
    """

    def __init__(self):
        self.config = config.Config()
        self.elfcorehdr = None
        self.targets = []
        self.any_disk = True
        self.level = config.LEVEL_MAX
        self.compress = True
        self.encrypted = False
        self.then = "reboot"
        self.run = "dump"
        self.fault = None
        self.problems = []

    def places(self):
        """Return config.Target in order of preference; none: the first disk that takes the dump.

        Raises OptionError where disks are named and none of the names is usable: no dump may go to
        a disk that nobody named.
        """
        if not self.targets and not self.any_disk:
            raise OptionError("pvdump.disk= names no usable disk: a name like xvdb expected")
        return self.targets

    def private(self):
        """Tell whether no text of the crashed kernel may be told, on the console or in xenstore."""
        return bool(self.config.recipients) and not self.config.log_clear

    def name(self, source, name):
        """Add a disk by its name, or note that it is none in the source that has it."""
        for target in self.config.targets:
            if target.extents is None and target.name == name:
                self.add(source, target)
                return
        self.add(source, config.Target(name))

    def add(self, source, target):
        """Add a target, or note that it has no disk's name in the source that has it."""
        self.any_disk = False
        try:
            vdev.number(target.name)
        except BadDiskName as e:
            self.problems.append("%s=%s" % (source, e))
            return
        if str(target) not in [str(each) for each in self.targets]:
            self.targets.append(target)


def read(boot, modes, ends):
    """Read the command line and the configuration. What cannot be used is noted, not raised.

    Args:
        boot: what hw.boot() returned.
        modes, ends: as for parse().

    Returns: Options.
    """
    door, cmdline, listed, memmap, _ = boot
    problems = []
    contents = []
    found = config.Config()
    for addr, length in listed:
        content = modules.content(addr, length, memmap, config.SIZE_MAX)
        if content is None:
            problems.append("module of %d bytes at 0x%x: no memory, ignored" % (length, addr))
            continue
        contents.append(content)
        if bytes(content[: len(config.MAGIC)]) == config.MAGIC:
            try:
                found = config.decode(content)
            except ConfigError as e:
                problems.append("%s: ignored" % e)
    options = parse(modules.text(cmdline, contents), door, modes, ends, found)
    options.problems = problems + options.problems
    return options


def parse(line, door, modes, ends, found):
    """Read the options on a command line.

    What cannot be used is noted in `problems`, not raised: the end action must be known before
    anything is refused.

    Args:
        line: str.
        door: "pvh" or "bzimage", how the image was entered.
        modes: names that pvdump.run= may have.
        ends: names that pvdump.then= may have.
        found: the config.Config, for what the line does not say.
    """
    options = Options()
    options.config = found
    # A firmware that reboots because it has nothing to do would do so for ever.
    if door == "pvh":
        options.then = "poweroff"
    options.then = found.then or options.then
    if found.algorithm is not None:
        options.compress = found.algorithm != "none"
    if found.level is not None:
        options.level = found.level
    for word in line.split():
        key, _, value = word.partition("=")
        try:
            _set(options, key, value, modes, ends)
        except OptionError as e:
            options.problems.append(str(e))
    if options.any_disk:
        for target in found.targets:
            options.add("target", target)
    return options


def _set(options, key, value, modes, ends):
    if key == "elfcorehdr":
        options.elfcorehdr = address(value)
    elif key == "pvdump.disk":
        for name in value.split(","):
            options.name(key, name)
    elif key == "pvdump.then":
        options.then = _choice(key, value, ends)
    elif key == "pvdump.level":
        level = config.LOG_ONLY if value == "log" else decimal(value, 0, config.LEVEL_MAX)
        if level is None:
            raise OptionError(
                "%s=%s: 0 to %d or log expected" % (key, value[:40], config.LEVEL_MAX)
            )
        options.level = level
    elif key == "pvdump.compress":
        options.compress = _choice(key, value, config.ALGORITHMS) != "none"
    elif key == "pvdump.recipients":
        # Whatever the value: nothing may leave in clear because of a mistyped word.
        options.encrypted = True
        _choice(key, value, ("required",))
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
