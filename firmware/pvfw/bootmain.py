"""pvboot's Python entry point: it reads what is asked for, runs a mode, and ends.

Called once by the boot stub (C), as main.py is in the crash kernel's image. Options of other
programs on the command line are passed over. What it does not say may stand in xenstore, where the
toolstack writes before the domain runs. Rules: what the command line says counts, also where it
cannot be used; where it names a key, nothing but the command line gets around that, so a key that
is none, and a command line that is not there as a whole, let nothing be booted.

    pvdump.run=boot             what to do: boot, the kernel that a disk says; shell, a prompt;
                                script, the scripts alone
    pvdump.entry=ID             boot: the entry with this id, or number, in place of the default
    pvdump.timeout=5            boot: seconds that a key is waited for, which shows the menu
    pvdump.tries=3              boot: how many boots of an entry that do not end make it passed
                                over, where the guest has a counter; 0: it is not looked for
    pvdump.then=poweroff        afterwards: reboot, poweroff or halt
    pvdump.verify=KEY           boot: only what this public key of minisign has signed; may be said
                                several times
    pvdump.allow=edit,shell     with verify: the menu edits command lines, and gives a prompt
    vm-data/pvboot/entry, run, timeout
                                in xenstore; with verify, run only where the prompt is allowed
"""

import hw
from xenpv import abi
from xenpv.errors import XenError
from xenpv.hypercall import Hypercalls
from xenpv.text import decimal, printable

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
from .shell.sections import CONTENT_MAX

TIMEOUT_MAX = 3600
TRIES, TRIES_MAX = 3, 255
# What pvdump.run= can ask for.
MODES = ("boot", "script", "shell")
# What pvdump.allow= can ask for.
ALLOWED = ("edit", "shell")
PREFIX = "pvdump."
# Where xenstore may say some of it, below the domain's own folder.
NODE = "vm-data/pvboot"
STORED = ("entry", "run", "timeout")
STORED_MAX, VALUE_MAX = 16, 256
CMDLINE_MAX = 2047  # what boot/info.c takes


class Settings:
    """What is asked for.

    Args:
        line: the command line, str.
        is_cut: whether there may be more of it that was not read.

    Attributes: run, the mode; entry, an id or None; timeout, seconds or None; tries; then, the end
    action or None; trust, boot.trust.Trust, or None where nothing need be signed; problems, what
    could not be used and is not told yet, one message each.
    """

    def __init__(self, line, is_cut=False):
        self.run = "boot"
        self.entry = self.timeout = self.then = None
        self.tries = TRIES
        self.problems = []
        self._said = []
        self._keys, self._allowed = [], ()
        if is_cut:
            self.problems.append("the options are too long to be read whole: nothing is booted")
        for word in line.split():
            name, _, value = word.partition("=")
            if name[: len(PREFIX)] == PREFIX:
                self._said.append(name[len(PREFIX) :])
                self._take(name, name[len(PREFIX) :], value)
        self.trust = None
        if is_cut or "verify" in self._said:
            self.trust = Trust([] if is_cut else self._keys)

    def may(self, what):
        """Tell whether somebody at the console may do what needs no signature: ALLOWED."""
        return self.trust is None or what in self._allowed

    async def add_stored(self, store):
        """Add what xenstore says, as far as the command line does not say it.

        Args:
            store: Xenstore, connected.
        """
        try:
            for key in (await store.directory(NODE, ()))[:STORED_MAX]:
                name = "%s/%s" % (NODE, key[:40])
                if key not in STORED:
                    self.problems.append("%s is no setting of pvboot" % name)
                elif key == "run" and not self.may("shell"):
                    self.problems.append("%s needs pvdump.allow=shell" % name)
                elif key not in self._said:
                    value = await store.read(name)
                    self._take(name, key, printable(value[:VALUE_MAX].strip()))
        except XenError as e:
            self.problems.append("%s: %s" % (NODE, e))

    def tell(self):
        """Say what could not be used, and has not been told."""
        for problem in self.problems:
            say(problem)
        self.problems = []

    def _take(self, name, key, value):
        try:
            self._set(name, key, value)
        except OptionError as e:
            self.problems.append(str(e))

    def _set(self, name, key, value):
        if key == "run":
            self.run = _choice(name, value, MODES)
        elif key == "then":
            self.then = _choice(name, value, ENDS)
        elif key == "entry":
            self.entry = value
        elif key == "timeout":
            self.timeout = _number(name, value, TIMEOUT_MAX)
        elif key == "tries":
            self.tries = _number(name, value, TRIES_MAX)
        elif key == "verify":
            try:
                self._keys.append(PublicKey(value))
            except NotSigned as e:
                raise OptionError("%s=%s: %s" % (name, value[:60], e))
        elif key == "allow":
            self._allowed = tuple(_choice(name, each, ALLOWED) for each in value.split(","))
        else:
            raise OptionError("%s is no option of pvboot" % name[:40])


def _number(name, value, most):
    found = decimal(value, 0, most)
    if found is None:
        raise OptionError("%s=%s: 0 to %d expected" % (name, value[:40], most))
    return found


def _choice(name, value, allowed):
    if value not in allowed:
        raise OptionError("%s=%s: %s expected" % (name, value[:40], ", ".join(sorted(allowed))))
    return value


def _is_cut(cmdline, contents):
    """Tell whether modules.text() perhaps does not have all that was said. Args: as it."""
    if cmdline.strip() or not contents:
        return len(cmdline) >= CMDLINE_MAX
    head = bytes(contents[0][: modules.TEXT_MAX])
    is_text = head[: len(modules.TEXT_MAGIC)] == modules.TEXT_MAGIC
    return is_text and len(contents[0]) > modules.TEXT_MAX and head.find(b"\n#!") < 0


def main():
    """Do what the command line asks for, then end so. Does not return."""
    _, cmdline, listed, memmap, region = hw.boot()
    contents = [modules.content(at, size, memmap, CONTENT_MAX) for at, size in listed]
    contents = [content for content in contents if content is not None]
    settings = Settings(modules.text(cmdline, contents), _is_cut(cmdline, contents))
    say("firmware at 0x%x, %d KiB" % (region[0], (region[1] - region[0]) >> 10))
    settings.tell()
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
    await settings.add_stored(guest.store)
    settings.tell()
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
