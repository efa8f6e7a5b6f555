"""`./build.py run ONE.py TWO.py`: two scripts, each in a domain of one embedded Xen.

Called by run.py. Each domain finds the number of the other in its node data/partner. The rule: a
line on the terminal begins with the name of its domain, so that nobody has to guess whose it is.
"""

from __future__ import annotations

import argparse
import sys

from tools import Trouble, run

NAMES = ("one", "two")


class Lines:
    """Prints what a domain writes, line by line, behind its name."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._line = bytearray()

    def __call__(self, part: bytes) -> None:
        self._line += part
        while b"\n" in self._line:
            line, _, self._line = self._line.partition(b"\n")
            print(f"{self._name} | {line.decode('ascii', 'replace')}", flush=True)


def play(chosen: argparse.Namespace, elf: bytes, flat: bytes) -> int:
    """Run two scripts. The disks are the first one's.

    Returns: the exit status, 0 where both domains ended by themselves.
    Raises: Trouble for a script or a disk that cannot be used.
    """
    from pvxen.cpu import CpuError
    from pvxen.image import EmbeddedImage
    from pvxen.machine import Deadlock
    from pvxen.together import Together
    from pvxen.toolstack import Toolstack

    xen = Toolstack(chosen.seed)
    pairs = []
    for name, path in zip(NAMES, chosen.scripts, strict=True):
        script = run.load_script(path, chosen.modules)
        options = run.firmware_options(chosen.cmdline or run.SCRIPT, script)
        domain = xen.create(name=name, **options)
        domain.machine.ram[run.SCRIPT_AT : run.SCRIPT_AT + len(script)] = script
        pairs.append((EmbeddedImage(elf, flat, Lines(name)), domain))
    (_, one), (_, two) = pairs
    for domain, other in ((one, two), (two, one)):
        domain.store.write(f"{domain.home}/data/partner", other.domid)
    for letter, sink in zip(run.DISKS, run.sinks(chosen.disk), strict=False):
        one.disk(f"xvd{letter}", sink)
    try:
        reasons = [run.REASONS[number] for number in Together(pairs).run()]
    except (CpuError, Deadlock) as error:
        raise Trouble(str(error)) from None
    for name, reason in zip(NAMES, reasons, strict=True):
        print(f"the domain {name} has ended: {reason}", file=sys.stderr)
    return 0 if all(reason in run.BY_ITSELF for reason in reasons) else 1
