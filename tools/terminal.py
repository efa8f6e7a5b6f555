"""The keys of this terminal, for the console of an embedded domain.

Used by tools/run.py. The domain's time is not ours: while nothing happens in it and it waits, we
wait for keys, as long as it does. The rule: the terminal is afterwards as it was.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pvxen.machine import Machine

NS = 10**9
LEAVE = b"\x1d"  # Ctrl-]
END = b"\x04"  # Ctrl-D, typed where the input ends
LFLAG = 3  # index in what tcgetattr gives


class Left(Exception):
    """The person typed Ctrl-]."""


@contextlib.contextmanager
def keys(machine: Machine, type_: Callable[[bytes], None]) -> Iterator[None]:
    """Give what is typed here to a domain that runs within the block.

    Args:
        machine: the domain's; its on_idle is ours meanwhile.
        type_: types bytes at the domain's console.

    Raises: Left.
    """
    source = sys.stdin.fileno()
    ended = False

    def on_idle(ns: int) -> None:
        nonlocal ended
        if ended or not select.select([source], [], [], ns / NS)[0]:
            return
        data = os.read(source, 512)
        ended = not data
        if LEAVE in data:
            raise Left
        type_(data or END)

    machine.on_idle = on_idle
    with _raw(source):
        yield


@contextlib.contextmanager
def _raw(source: int) -> Iterator[None]:
    """Have the terminal give single keys, Ctrl-C too, and not show them."""
    if not os.isatty(source):
        yield
        return
    before = termios.tcgetattr(source)
    changed = termios.tcgetattr(source)
    changed[LFLAG] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
    termios.tcsetattr(source, termios.TCSADRAIN, changed)
    try:
        yield
    finally:
        termios.tcsetattr(source, termios.TCSADRAIN, before)
