"""A real Xen on a machine without one: Debian's Xen, dom0 and guests under QEMU's emulation.

Used by `./build.py lab` and `demo` and by the tests that need Xen itself. The rule: nothing is
installed and no KVM or root is needed; QEMU is the one program taken from the host, all else are
Debian packages unpacked into the cache.

    from lab.guest import Guest
    from lab.xen import Xen

    with Xen(suite="bookworm", xenstored="oxenstored") as xen:
        guest = xen.create(Guest.load("lab/guests/linux-crash.yaml"))
        guest.wait_console(r"Kernel panic")
"""

from tools import Trouble

PATIENCE = 600  # s: what takes longer hangs; a busy machine is many times slower than a quiet one


class LabError(Trouble):
    """Something in the lab did not go as asked; the message has the last lines of what was seen."""


class LabTimeout(LabError):
    """A wait has passed its bound; the message says what was waited for."""
