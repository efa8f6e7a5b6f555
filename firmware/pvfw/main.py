"""The image's Python entry point: it reads how the image was entered, runs a mode, and ends.

Called once by the boot stub (C). Each failure ends in one line on the console, in xenstore where
that works, and in the end action; after an unforeseen error the boot stub prints a traceback and
crashes the domain.
"""

import hw
from xenpv.errors import XenError
from xenpv.guest import Guest
from xenpv.hypercall import Hypercalls

from . import dump, options, selfcheck
from .ending import ENDS, end
from .errors import DumpError, reason
from .report import Report, say

# What pvdump.run= can ask for: async functions of (Guest, Options, region, Report).
MODES = {
    "dump": dump.run,
    "check": selfcheck.run,
}


def main():
    """Do what the command line and the configuration ask for, then end so. Does not return."""
    boot = hw.boot()
    door, region = boot[0], boot[4]
    chosen = options.read(boot, MODES, ENDS)
    say(
        "%s at 0x%x, %d KiB"
        % (
            "firmware" if door == "pvh" else "crash kernel",
            region[0],
            (region[1] - region[0]) >> 10,
        )
    )
    for problem in chosen.problems:
        say(problem)
    if chosen.fault is not None:
        fail(chosen.fault)
    if not hw.xen():
        say("this machine is not Xen: no CPUID leaf from 0x40000000 on says XenVMMXenVMM. Halted.")
        hw.halt()
    xen = Hypercalls()
    try:
        guest = Guest(xen)
        guest.loop.run(work(guest, chosen, region))
    except (XenError, MemoryError) as e:
        say("%s failed: %s" % (chosen.run, reason(e)))
    end(xen, chosen.then)


def fail(kind):
    """Fail as pvdump.fault= asks, to show that reports reach the console."""
    if kind == "python":
        raise ValueError("pvdump.fault=python")
    hw.fault(kind)


async def work(guest, chosen, region):
    """Do what was asked; tell how it ended, on the console and in xenstore."""
    report = Report(guest)
    try:
        await guest.store.connect()
        await MODES[chosen.run](guest, chosen, region, report)
    except (DumpError, XenError, MemoryError) as e:
        say("%s failed: %s" % (chosen.run, reason(e)))
        await report.end("failed", reason(e))
    except Exception as e:
        await report.end("failed", reason(e))
        raise
    else:
        await report.end("complete", "")
