"""The other end of a guest's PV console: what `xl console` shows, and what is typed there.

Made for a domain whose image runs on a CPU; under CPython print() is CPython's own. The rule: the
ring is read at each event of the guest, and the guest is told when it has been; what is typed and
finds no room waits for the next event.
Source: xen/include/public/io/console.h.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import TYPE_CHECKING

from xenpv import abi

from .hypervisor import DOM0

if TYPE_CHECKING:
    from .domain import EmbeddedDomain

IN_SIZE = 1024  # at the page's begin
OUT, OUT_SIZE = 1024, 2048
IN_CONS, IN_PROD, OUT_CONS, OUT_PROD = 3072, 3076, 3080, 3084
U32 = 0xFFFFFFFF


class ConsoleReader:
    """Reads the console of `domain` and gives the bytes to `output`."""

    def __init__(self, domain: EmbeddedDomain, output: Callable[[bytes], None]) -> None:
        self._domain = domain
        self._output = output
        self._line = bytearray()
        self._bind()
        domain.on_move.append(self._bind)

    def _bind(self) -> None:
        domain = self._domain
        params = domain.machine.params
        self._page = domain.machine.page(params[abi.HVM_PARAM_CONSOLE_PFN])
        evtchn = domain.machine.evtchn
        port = params[abi.HVM_PARAM_CONSOLE_EVTCHN]
        self._port = evtchn.bind_interdomain(DOM0, domain.domid, port)
        evtchn.on(DOM0, self._port, self._step)

    def _step(self) -> None:
        cons, prod = struct.unpack_from("<II", self._page, OUT_CONS)
        count = (prod - cons) & U32
        if 0 < count <= OUT_SIZE:
            self._output(bytes(self._page[OUT + (cons + i) % OUT_SIZE] for i in range(count)))
            struct.pack_into("<I", self._page, OUT_CONS, prod)
            self._domain.machine.evtchn.send(DOM0, self._port)
        self._put()

    def type(self, text: bytes) -> None:
        """Type bytes at the console."""
        self._line += text
        self._put()

    def _put(self) -> None:
        cons, prod = struct.unpack_from("<II", self._page, IN_CONS)
        count = min(len(self._line), IN_SIZE - ((prod - cons) & U32))
        if count <= 0:
            return
        for i in range(count):
            self._page[(prod + i) % IN_SIZE] = self._line[i]
        del self._line[:count]
        struct.pack_into("<I", self._page, IN_PROD, (prod + count) & U32)
        self._domain.machine.evtchn.send(DOM0, self._port)
