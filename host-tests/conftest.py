"""Fixtures of all tests: `hw` compiled for CPython, an embedded machine, and seeds.

Hypothesis draws the same examples each time, so that a run can be repeated; fresh ones are what
`./build.py fuzz` is for.
"""

import pytest
from hypothesis import settings

from tools import hwlib

hwlib.install()

import hw  # noqa: E402 - only there once it is compiled
from pvxen import clock  # noqa: E402
from pvxen.machine import Machine  # noqa: E402

settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


def pytest_addoption(pluginmanager):
    """Load the options and fixtures that are files of their own."""
    pluginmanager.import_plugin("fixtures.fuzzing")
    pluginmanager.import_plugin("fixtures.matrix")
    pluginmanager.import_plugin("fixtures.sharing")


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
