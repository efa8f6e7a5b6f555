"""A test that fails after an embedded machine ran says with which seed."""

import pytest

from tools import hwlib

pytest_plugins = ["pytester"]
HERE = "host-tests/conftest.py"

FAILING = """
from pvxen.machine import Machine

def test_that_fails():
    Machine(seed=4711)
    assert False

def test_that_fails_without_a_machine():
    assert False

def test_that_passes():
    Machine(seed=815)
"""


@pytest.fixture
def report(pytester, request):
    """What pytest prints of FAILING, with this folder's conftest."""
    conftest = request.config.rootpath / HERE
    pytester.makeconftest(conftest.read_text())
    pytester.makepyfile(FAILING)
    hwlib.install()
    result = pytester.runpytest_inprocess()
    result.assert_outcomes(failed=2, passed=1)
    return result.stdout.str()


def test_a_failure_shows_the_seed_and_nothing_else_does(report):
    assert report.count("seed 4711") == 1
    assert report.count("embedded machine") == 1
    assert "seed 815" not in report
