"""The end actions: what becomes of the domain when the image has done its work.

Used by the images' entries.
"""

import hw
from xenpv import abi
from xenpv.loop import SECOND
from xenpv.pollloop import WATCHDOG_SECONDS

from .report import say

FLUSH_MS = 2000
# By name: what is said, and the shutdown's reason, None to stay.
ENDS = {
    "reboot": ("rebooting", abi.SHUTDOWN_reboot),
    "poweroff": ("powering off", abi.SHUTDOWN_poweroff),
    "halt": ("halted", None),
}


def end(xen, then):
    """Take the end action. Does not return."""
    words, shutdown = ENDS[then]
    say(words)
    hw.console_flush(FLUSH_MS)
    if shutdown is not None:
        xen.shutdown(shutdown)
    # Stay, so that the domain can be looked at.
    while True:
        hw.watchdog(WATCHDOG_SECONDS)
        xen.sleep(SECOND)
