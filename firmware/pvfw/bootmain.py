"""pvboot's Python entry point: it reads what is asked for, runs a mode, and ends.

Called once by the boot stub (C), as main.py is in the crash kernel's image. Options of other
programs on the command line are passed over.

    pvdump.run=boot             what to do: boot, the kernel that a disk says; shell, a prompt;
                                script, the scripts alone
    pvdump.entry=ID             boot: the entry with this id, or number, in place of the default
    pvdump.timeout=5            boot: seconds that a key is waited for, which shows the menu
    pvdump.then=poweroff        afterwards: reboot, poweroff or halt
"""

import hw
from xenpv import abi
from xenpv.errors import XenError
from xenpv.hypercall import Hypercalls
from xenpv.text import decimal

from . import modules
from .ending import ENDS, FLUSH_MS, end
from .errors import OptionError, reason
from .kernel import mode as kernel
from .report import say
from .shell import mode as shell
from .shell.guest import ShellGuest
from .shell.sections import CONTENT_MAX

TIMEOUT_MAX = 3600
# What pvdump.run= can ask for.
MODES = ("boot", "script", "shell")


class Settings:
    """What is asked for.

    Args:
        line: the command line, str.

    Attributes: run, the mode; entry, an id or None; timeout, seconds or None; then, the end action
    or None; problems, what could not be used, one message each.
    """

    def __init__(self, line):
        self.run = "boot"
        self.entry = self.timeout = self.then = None
        self.problems = []
        for word in line.split():
            key, _, value = word.partition("=")
            try:
                self._set(key, value)
            except OptionError as e:
                self.problems.append(str(e))

    def _set(self, key, value):
        if key == "pvdump.run":
            self.run = _choice(key, value, MODES)
        elif key == "pvdump.then":
            self.then = _choice(key, value, ENDS)
        elif key == "pvdump.entry":
            self.entry = value
        elif key == "pvdump.timeout":
            self.timeout = decimal(value, 0, TIMEOUT_MAX)
            if self.timeout is None:
                raise OptionError("%s=%s: 0 to %d expected" % (key, value[:40], TIMEOUT_MAX))
        elif key[:7] == "pvdump.":
            raise OptionError("%s is no option of pvboot" % key[:40])


def _choice(key, value, allowed):
    if value not in allowed:
        raise OptionError("%s=%s: %s expected" % (key, value[:40], ", ".join(sorted(allowed))))
    return value


def main():
    """Do what the command line asks for, then end so. Does not return."""
    _, cmdline, listed, memmap, region = hw.boot()
    contents = [modules.content(at, size, memmap, CONTENT_MAX) for at, size in listed]
    contents = [content for content in contents if content is not None]
    settings = Settings(modules.text(cmdline, contents))
    say("firmware at 0x%x, %d KiB" % (region[0], (region[1] - region[0]) >> 10))
    for problem in settings.problems:
        say(problem)
    if not hw.xen():
        say("this machine is not Xen: no CPUID leaf from 0x40000000 on says XenVMMXenVMM. Halted.")
        hw.halt()
    xen = Hypercalls()
    then = "poweroff"
    try:
        guest = ShellGuest(xen)
        then = guest.loop.run(_work(guest, settings, contents))
    except (XenError, MemoryError) as e:
        say("%s failed: %s" % (settings.run, reason(e)))
    if then == "crash":
        hw.console_flush(FLUSH_MS)
        xen.shutdown(abi.SHUTDOWN_crash)
    end(xen, settings.then or then)


async def _work(guest, settings, contents):
    await guest.store.connect()
    if settings.run == "boot":
        await kernel.run(guest, settings)
    await guest.listen()
    then = shell.run(guest, contents, settings.run != "script")
    await guest.leave()
    await guest.store.close()
    return then
