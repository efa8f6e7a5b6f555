"""The image itself in an embedded domain: pvdump.elf or pvdump.bin, executed by a CPU of ours.

The way in for tests and for `build.py run`, beside running the firmware's main() under CPython:

    image = EmbeddedImage(elf, flat)
    guest = EmbeddedGuest(size, ram=image.ram, door="pvh", cmdline=b"pvdump.run=check")
    reason = image.run(guest)
    image.text                      # the debug console

The rule: the domain is the same as for CPython, and says by its door which file is loaded. The CPU
is kept for the next domain of the same RAM, with what it has translated.
"""

from __future__ import annotations

import mmap
from collections.abc import Callable

from xenpv import abi

from .consolering import ConsoleReader
from .cpu import Cpu
from .domain import EmbeddedDomain
from .loader import load
from .machine import Shutdown


class EmbeddedImage:
    """The files of one image.

    Args:
        elf: content of pvdump.elf.
        flat: content of pvdump.bin.
        output: called with what the image writes to port 0xE9, byte by byte, or None.

    Attributes:
        text (str): what the last run wrote to port 0xE9.
        console (str): what it wrote to its PV console.
        ram (mmap): memory of the last domain, for the next one; None before the first.
        type: types bytes at the PV console of the domain that runs, as from its on_idle.
    """

    def __init__(
        self, elf: bytes, flat: bytes, output: Callable[[bytes], object] | None = None
    ) -> None:
        self._elf = elf
        self._flat = flat
        self._tell = output
        self._cpu: Cpu | None = None
        self._debug = bytearray()
        self._console = bytearray()
        self.type: Callable[[bytes], None] = self._nobody

    @property
    def text(self) -> str:
        """The lines of the debug console."""
        return self._debug.decode("ascii", "replace")

    @property
    def console(self) -> str:
        """The lines of the PV console."""
        return self._console.decode("ascii", "replace")

    @property
    def ram(self) -> mmap.mmap | None:
        """The guest's memory, None before the image starts."""
        return None if self._cpu is None else self._cpu.machine.ram

    def run(self, domain: EmbeddedDomain, recovery: str | None = None) -> int:
        """Boot the image in a domain and run it until the domain shuts down.

        Args:
            domain: a domain whose door and command line say how the image starts.
            recovery: what the toolstack does when the domain shuts down for a soft reset, after
                which the image starts again, one of toolstack.RECOVERIES; None: nothing.

        Returns: the shutdown reason, one of SHUTDOWN_*.
        Raises: Deadlock; CpuError; NotAnImage.
        """
        self._debug.clear()
        self._console.clear()
        self.type = ConsoleReader(domain, self._console.extend).type
        while True:
            reason = self._boot(domain)
            if reason != abi.SHUTDOWN_soft_reset or recovery is None:
                return reason
            domain.xen.recover(domain.domid, recovery)
            if recovery != "resume":
                self.type = ConsoleReader(domain, self._console.extend).type

    def _nobody(self, text: bytes) -> None:
        raise ValueError(f"no domain runs where {text!r} could be typed")

    def _boot(self, domain: EmbeddedDomain) -> int:
        """Boot once, to the end of the domain. Returns the shutdown reason."""
        machine = domain.machine
        if self._cpu is None or self._cpu.machine.ram is not machine.ram:
            self._cpu = Cpu(machine, self._write)
        self._cpu.start(machine, load(machine, self._elf, self._flat))
        try:
            self._cpu.run()
        except Shutdown as ended:
            return ended.reason

    def _write(self, byte: int) -> None:
        self._debug.append(byte)
        if self._tell is not None:
            self._tell(bytes([byte]))
