"""What every test may use: `hw` compiled for CPython, and an embedded machine to attach it to."""

import pytest

from tools import hwlib

hwlib.install()

import hw  # noqa: E402 - only there once it is compiled
from pvdump.xen.machine import Machine  # noqa: E402


@pytest.fixture
def machine():
    """A machine of 16 MiB, attached to `hw`."""
    machine = Machine()
    hw.attach(machine)
    return machine
