"""Two test processes share the tests as fixtures/sharing.py and fixtures/matrix.py promise."""

import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = "-p fixtures.matrix -p fixtures.sharing -p no:cacheprovider -q".split()
SHARED = "-n 2 --dist loadgroup --no-loadscope-reorder".split()
TESTS = """
import os
import pytest

row = pytest.mark.matrix(number=list(range(6)), together=True)

def note(name):
    print(name, os.getpid(), file=open("{log}", "a"))

@pytest.mark.parametrize("number", range(20))
def test_of_a_file(number):
    note("file")

@pytest.mark.xen
@row
def test_one(number):
    note(number)

@pytest.mark.xen
@row
def test_another(number):
    note(number)
"""


def test_a_file_s_tests_and_a_row_s_have_one_process(tmp_path):
    log, tests = tmp_path / "log", tmp_path / "test_shared.py"
    tests.write_text(TESTS.replace("{log}", str(log)))
    subprocess.run(
        [sys.executable, "-m", "pytest", *OPTIONS, *SHARED, str(tests)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT / "host-tests")},
        check=True,
        capture_output=True,
    )
    processes = defaultdict(list)
    for line in log.read_text().splitlines():
        name, process = line.split()
        processes[name].append(process)
    assert len(processes["file"]) == 20
    assert len(processes) == 7
    assert all(len(set(found)) == 1 for found in processes.values())
