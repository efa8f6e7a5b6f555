"""A real Xen on a machine without one: Debian's Xen, dom0 and guests under QEMU's emulation.

Used by `./build.py lab` and `demo` and by the tests that need Xen itself. The rule: nothing is
installed and no KVM or root is needed; QEMU is taken from the host, everything else from Debian
packages that are unpacked into the cache.

    from lab.guest import Guest
    from lab.xen import Xen

    with Xen(suite="bookworm", xenstored="oxenstored") as xen:
        guest = xen.create(Guest.load("lab/guests/linux-crash.yaml"))
        guest.wait_console(r"Kernel panic")
"""

from tools import Trouble

# A step that takes longer hangs. A busy machine is many times slower than a quiet one.
WAIT_SECONDS = 600


class LabError(Trouble):
    """A step in the lab has failed. If there are logs, the message ends with their last lines."""


class LabTimeout(LabError):
    """A wait has reached its time limit; the message says what was waited for."""
