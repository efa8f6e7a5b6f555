"""pvboot's Python entry point: it reads what is asked for, runs a mode, and ends.

Called once by the boot stub (C), as main.py is in the crash kernel's image. Options of other
programs on the command line are passed over.

    pvdump.run=boot             what to do: boot, the kernel that a disk says; shell, a prompt;
                                script, the scripts alone
    pvdump.entry=ID             boot: the entry with this id, or number, in place of the default
    pvdump.timeout=5            boot: seconds that a key is waited for, which shows the menu
    pvdump.then=poweroff        afterwards: reboot, poweroff or halt
    pvdump.verify=KEY           boot: only what this public key of minisign has signed; may be said
                                several times
    pvdump.allow=edit,shell     with verify: the menu edits command lines, and gives a prompt

Rule: where a key is named, nothing but the command line gets around it. So a key that is none, and
a command line that is not there as a whole, let nothing be booted.
"""

import hw
from xenpv import abi
from xenpv.errors import XenError
from xenpv.hypercall import Hypercalls
from xenpv.text import decimal

from . import modules
from .boot.errors import NotSigned
from .boot.minisign import PublicKey
from .boot.trust import Trust
from .ending import ENDS, FLUSH_MS, end
from .errors import OptionError, reason
from .kernel import mode as kernel
from .report import say
from .shell import mode as shell
from .shell.guest import ShellGuest

MODULE_MAX = 4 << 20
TIMEOUT_MAX = 3600
# What pvdump.run= can ask for.
MODES = ("boot", "script", "shell")
# What pvdump.allow= can ask for.
ALLOWED = ("edit", "shell")


class Settings:
    """What is asked for.

    Args:
        line: the command line, str.
        is_cut: whether there may be more of it that was not read.

    Attributes: run, the mode; entry, an id or None; timeout, seconds or None; then, the end action
    or None; trust, boot.trust.Trust or None; problems, what could not be used, one message each.
    """

    def __init__(self, line, is_cut=False):
        self.run = "boot"
        self.entry = self.timeout = self.then = None
        self.problems = []
        self._keys, self._allowed = [], ()
        self._verifies = is_cut
        if is_cut:
            self.problems.append("the options are too long to be read whole: nothing is booted")
        for word in line.split():
            key, _, value = word.partition("=")
            try:
                self._set(key, value)
            except OptionError as e:
                self.problems.append(str(e))
        self.trust = Trust([] if is_cut else self._keys) if self._verifies else None

    def may(self, what):
        """Tell whether somebody at the console may do what needs no signature: ALLOWED."""
        return self.trust is None or what in self._allowed

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
        elif key == "pvdump.verify":
            self._verifies = True
            try:
                self._keys.append(PublicKey(value))
            except NotSigned as e:
                raise OptionError("%s=%s: %s" % (key, value[:60], e))
        elif key == "pvdump.allow":
            self._allowed = tuple(_choice(key, each, ALLOWED) for each in value.split(","))
        elif key[:7] == "pvdump.":
            raise OptionError("%s is no option of pvboot" % key[:40])


def _choice(key, value, allowed):
    if value not in allowed:
        raise OptionError("%s=%s: %s expected" % (key, value[:40], ", ".join(sorted(allowed))))
    return value


def main():
    """Do what the command line asks for, then end so. Does not return."""
    _, cmdline, listed, memmap, region = hw.boot()
    contents = [modules.content(at, size, memmap, MODULE_MAX) for at, size in listed]
    contents = [content for content in contents if content is not None]
    is_cut = modules.is_cut(cmdline, contents)
    settings = Settings(modules.text(cmdline, contents), is_cut)
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
    stays = settings.run == "shell" or (settings.run == "boot" and settings.may("shell"))
    if settings.run == "boot" and not stays:
        say("no prompt without pvdump.allow=shell: the toolstack wants what is signed")
    then = shell.run(guest, contents, stays)
    await guest.leave()
    await guest.store.close()
    return then
