"""The faults of a block backend, by name.

Given to domain.EmbeddedDomain.disk(). A number names the request, counted from 0, at which the
fault strikes. The default does nothing wrong.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xenpv import abi

# Added to an id: a multiple of 40, 72, 136 and 264, the numbers of places that front ends have. So
# the id means the same place, of a request that was never made.
UNUSED = 8415 << 32


@dataclass
class Faults:
    """The faults of one backend; without arguments it has none."""

    # The device.
    plain: bool = False  # offers nothing: one page of ring, 11 segments a request
    tapback: bool = False  # as XCP-ng's: 8 pages of ring, 11 segments a request, barrier alone
    stuck_closing: bool = False  # Closing is answered with Closing, and that is the end
    ignores_closing: bool = False  # stays in its state whatever the front end does
    no_init_wait: bool = False  # never goes from Closed to InitWait
    never_connects: bool = False  # stays in InitWait
    lingers: int = 0  # ns that I/O goes on after Closed; meanwhile no front end is connected
    fragile: bool = False  # as QEMU 7.2: ends for good when it is closed with requests unanswered
    dies: int | None = None  # goes Closing and Closed instead of answering
    read_only: bool = False
    no_flush: bool = False  # neither flush nor barrier is offered, both are EOPNOTSUPP
    sector_size: int = 512
    # The data.
    error_after: int | None = None  # bytes; no sector takes data anew beyond so many
    # The responses.
    bad_id: int | None = None  # an id that was never used
    id_twice: int | None = None  # the same response once more
    bad_status: int | None = None  # a status that does not exist
    fails: int | None = None  # ERROR
    wrong_operation: int | None = None
    overflow: int | None = None  # rsp_prod announces more responses than the ring has entries
    never_answers: int | None = None  # from this request on
    reorder: bool = False  # in an order that the seed draws
    latency: int = 0  # ns

    def strikes(self, name: str, number: int) -> bool:
        """Return whether the fault `name` strikes at this request."""
        return getattr(self, name) == number

    def responses(
        self, number: int, response: tuple[int, int, int]
    ) -> Iterator[tuple[int, int, int]]:
        """Return (id, operation, status) of each response that the ring gets for a request."""
        answer, operation, status = response
        if self.strikes("bad_id", number):
            answer += UNUSED
        if self.strikes("bad_status", number):
            status = -77
        if self.strikes("fails", number):
            status = abi.BLKIF_RSP_ERROR
        if self.strikes("wrong_operation", number):
            operation ^= 1
        yield answer, operation, status
        if self.strikes("id_twice", number):
            yield answer, operation, status
