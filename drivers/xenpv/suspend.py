"""Suspension: this domain stops, and goes on as itself or as another one, with all its drivers.

Used by control.Control, for `xl save`, `restore` and `migrate`. The domain that goes on has the
memory of the one that stopped; of Xen's it has nothing: no event channel but those of xenstore and
console, no grant, no watchdog, holes where Xen's frames were mapped, another number, and perhaps
another system time. The order: devices, then xenstore, then Xen; and back. Rules: every page is
used again for what it was, so that any number of suspensions costs none; what devices had not
answered stands in line; the toolstack waits 60 s from the acknowledgement on, so that all waits
before the end together are shorter.
Source: xen/include/public/sched.h (SHUTDOWN_suspend); Xen tools/libs/light/libxl_dom_suspend.c.
"""

import hw

from . import abi
from .block import suspend as disks
from .errors import HypercallError, XenError
from .gnttab import STATUS_SPAN
from .loop import SECOND
from .xenstore import suspend as client

# Between two tries to reach xenstore again.
RETRY = 5 * SECOND


async def suspend(guest, say):
    """Suspend this domain. Returns when it goes on and its drivers are connected again.

    Where xenstore cannot be reached it is tried again until it can.

    Args:
        guest: Guest, its xenstore connected.
        say: a function that is given lines.

    Raises: XenError when Xen refuses something; devices that cannot be connected again do not.
    """
    grants, loop = guest.grants, guest.loop
    grants.suspended = True
    devices = list(grants.devices)
    try:
        await loop.gather([disks.suspend(device) for device in devices])
        await _stop(guest, say)
    finally:
        grants.suspended = False
        await loop.gather([disks.resume(device) for device in devices])


async def _stop(guest, say):
    """Suspend this domain, whose devices are suspended."""
    try:
        await client.suspend(guest.store)
    except XenError as e:
        say("leaving xenstore: %s" % e)
    # No other task runs until the grant table is there again.
    try:
        _sleep(guest.xen)
    finally:
        try:
            _wake(guest.loop)
            _map_again(guest.grants)
        finally:
            await _reach(guest.store, guest.loop, say)


def _sleep(xen):
    """Shut the domain down for the toolstack, and go on. Raises HypercallError."""
    began = xen.now()
    rc = hw.suspend()
    # Another host has another time.
    xen.ahead = began - hw.now()
    if rc < 0:
        raise HypercallError("SCHEDOP_shutdown %d" % abi.SHUTDOWN_suspend, -rc)


def _wake(loop):
    """Have all tasks look that wait for a port: there is none any more."""
    ports = loop.ports
    loop.ports = {}
    for signal in ports.values():
        signal.set()
    loop.shows_events = loop.evtchn.shows_events()


def _map_again(grants):
    """Map the grant table at the same pages again. Raises XenError when no entry can be used."""
    mapped = grants.mapped
    grants.begin()
    in_use = 0
    for frames in mapped:
        # Whoever still has it cannot end grants of another domain.
        frames.owner = None
        try:
            in_use += _map_frames(grants, frames)
        except HypercallError as e:
            grants.full = str(e)
    # In another domain none is in use, in the same one others may be, too.
    grants.set_aside = min(grants.set_aside, in_use)
    if not grants.fits(1):
        raise XenError("grant table: no entry can be used: %s" % grants.full)


def _map_frames(grants, frames):
    """Map some frames where they were. Returns how many of their entries are in use."""
    numbers = frames.numbers
    for number in numbers:
        grants.add(number, frames.address(number))
    status = None
    if grants.version != 1:
        number = numbers[0] // STATUS_SPAN
        status = grants.statuses[number]
        grants.add(number | abi.XENMAPIDX_grant_table_status, status + number * abi.PAGE_SIZE)
    return grants.use(frames.table, status, frames.stack, numbers[0], len(numbers))


async def _reach(store, loop, say):
    """Connect to xenstore again, however often that takes."""
    told = ""
    while True:
        try:
            await client.resume(store)
            return
        except XenError as e:
            if str(e) != told:
                told = str(e)
                say("after the suspension: %s; trying again" % e)
        await loop.sleep(RETRY)
