"""What every test may use: `hw` compiled for CPython, and an embedded machine to attach it to."""

import pytest

from tools import hwlib

hwlib.install()

import hw  # noqa: E402 - only there once it is compiled
from pvxen import clock  # noqa: E402
from pvxen.machine import Machine  # noqa: E402


def pytest_runtest_setup():
    clock.recent.clear()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item):
    """A test that fails tells the seeds of the machines that it made last."""
    report = yield
    if report.failed and clock.recent:
        seeds = sorted(set(clock.recent))
        report.sections.append(("embedded machine", "\n".join(f"seed {seed}" for seed in seeds)))
    return report


@pytest.fixture
def machine():
    """A machine of 16 MiB, attached to `hw`."""
    machine = Machine()
    hw.attach(machine)
    return machine
