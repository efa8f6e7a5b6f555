"""The modes `script` and `shell`: scripts that came as modules; then the end, or a Python prompt.

Called by bootmain, its xenstore connected. A script begins with a line that begins with #!pvboot,
at the begin of a module or behind the options that a module has (modules.py); what it imports may
stand behind it (sections.py). Rule: a script that
fails leaves the prompt, or ends the guest as a crash; one that calls exit() ends it.
"""

import sys

import terminal

import __main__
import hw
import xenpv

from ..modules import TEXT_MAGIC, TEXT_MAX
from . import sections
from .disk import Disk
from .prompt import Prompt

MAGIC = b"#!pvboot"

HELP = """\
This is MicroPython %s in a bare Xen guest. There is no kernel below it.

  store       xenstore: store.read("name"), store.write(path, value), store.directory(path),
              store.watch(path)
  disk        the first disk: disk.read(offset, size), disk.write(offset, data); Disk("xvdb")
  grants, evtchn, xen, loop, guest
              the other drivers: grant table, event channels, hypercalls, the loop
  hw          memory, time and hypercalls as they are: hw.mem(address, size), hw.now(), hw.boot()
  run(coro)   runs a coroutine to its end; `await` does so too, and so does the coroutine
              that stands alone at the prompt
  exit(), reboot()
              end the guest: power it off, or start it again
  help(x), help("modules")

Tab completes a name, the arrow keys find earlier lines, Ctrl-C interrupts, Ctrl-E takes a paste,
Ctrl-D on an empty line powers the guest off."""


def run(guest, contents, stays):
    """Run the scripts, then the prompt, to their end.

    Args:
        guest: Guest, whose loop is a ShellLoop.
        contents: of the modules, memoryviews.
        stays: whether there is a prompt.

    Returns: "poweroff", "reboot" or "crash", what is to be done.
    """
    prompt = Prompt(guest.loop)
    for name, value in names(guest).items():
        setattr(__main__, name, value)
    try:
        for i, content in enumerate(contents):
            script = _script(content)
            if not script:
                continue
            script, modules = sections.split(script)
            terminal.modules(modules)
            if not prompt.execute(script, "module%d.py" % i, False) and not stays:
                return "crash"
        if not stays:
            return "poweroff"
        version = ".".join(str(n) for n in sys.implementation[1][:3])
        print("MicroPython %s in a Xen guest; help() says what there is." % version)
        prompt.run()
    except SystemExit as e:
        return "reboot" if e.args[:1] == ("reboot",) else "poweroff"
    return "poweroff"


def _script(content):
    """Return the script in a module, None where it has none."""
    head = bytes(content[:TEXT_MAX])
    if head[: len(MAGIC)] == MAGIC:
        return content
    at = head.find(b"\n" + MAGIC)
    return content[at + 1 :] if head[: len(TEXT_MAGIC)] == TEXT_MAGIC and at >= 0 else None


def names(guest):
    """Return the names that scripts find, and their values."""
    helps = help

    def tell(*what):
        """Tell what there is, or what an object has."""
        if what:
            helps(*what)
        else:
            print(HELP % ".".join(str(n) for n in sys.implementation[1][:3]))

    def leave():
        """Power the guest off."""
        raise SystemExit

    def restart():
        """Start the guest again."""
        raise SystemExit("reboot")

    return {
        "disk": Disk(guest),
        "Disk": lambda name: Disk(guest, name),
        "evtchn": guest.evtchn,
        "exit": leave,
        "grants": guest.grants,
        "guest": guest,
        "help": tell,
        "hw": hw,
        "loop": guest.loop,
        "reboot": restart,
        "run": guest.loop.complete,
        "store": guest.store,
        "xen": guest.xen,
        "xenpv": xenpv,
    }
