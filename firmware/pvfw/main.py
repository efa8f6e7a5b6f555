"""Where the image's Python begins: what came in through the door, what to do, how to end.

Called once by the boot stub (C). Whatever goes wrong ends in one line on the console, in xenstore
where that works, and in the end action; an error that nobody foresaw ends in a traceback and a
crash of the domain, which the boot stub sees to.
"""

import hw
from xenpv import abi
from xenpv.errors import XenError
from xenpv.guest import Guest
from xenpv.hypercall import Hypercalls
from xenpv.loop import SECOND
from xenpv.pollloop import WATCHDOG_SECONDS

from . import options, selfcheck
from .dump import NODE, Dump
from .errors import DumpError, OptionError

FLUSH_MS = 2000


def say(line):
    """One line on the console."""
    print("pvdump: " + line)


def main():
    door, cmdline, modules, _, region = hw.boot()
    chosen = options.parse(options.text(door, cmdline, modules), door)
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
    except XenError as e:
        say("%s failed: %s" % (chosen.run, e))
    end(xen, chosen.then)


def fail(kind):
    """Fail as pvdump.fault= asks, to show that reports reach the console."""
    if kind == "python":
        raise ValueError("pvdump.fault=python")
    hw.fault(kind)


async def work(guest, chosen, region):
    """Do what was asked; say how it ended, on the console and in xenstore."""
    store = guest.store
    state, reason = "complete", ""
    try:
        await store.connect()
        if chosen.run == "check":
            await selfcheck.round_trip(store, "first", say)
            await selfcheck.try_disks(guest, chosen.disks, say)
            await store.close()
            store = guest.new_store()
            await store.connect()
            await selfcheck.round_trip(store, "second", say)
            say("check passed")
        else:
            await dump(guest, chosen, region)
    except (DumpError, XenError) as e:
        state, reason = "failed", str(e)
        say("%s failed: %s" % (chosen.run, reason))
    if store.connected():
        await leave(store, state, reason)


async def dump(guest, chosen, region):
    if chosen.elfcorehdr is None:
        raise OptionError(
            "no usable elfcorehdr= on the command line: load this image with `kexec -p`"
        )
    job = Dump(guest.xen, guest.loop, guest.store, guest.grants, say)
    await job.run(chosen.elfcorehdr, chosen.disks, region)


async def leave(store, state, reason):
    """Tell xenstore how it ended and hand the ring back, as far as that works."""
    try:
        await store.write(NODE + "state", state)
        await store.write(NODE + "reason", reason)
    except XenError as e:
        say("telling xenstore: %s" % e)
    try:
        await store.close()
    except XenError as e:
        say("leaving xenstore: %s" % e)


def end(xen, then):
    say({"reboot": "rebooting", "poweroff": "powering off", "halt": "halted"}[then])
    hw.console_flush(FLUSH_MS)
    if then != "halt":
        xen.shutdown(abi.SHUTDOWN_reboot if then == "reboot" else abi.SHUTDOWN_poweroff)
    # Stay, for whoever wants to look at the domain.
    while True:
        hw.watchdog(WATCHDOG_SECONDS)
        xen.sleep(SECOND)
