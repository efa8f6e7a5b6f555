"""Only one process serves the disks of a machine."""

import os
import subprocess
import sys

import pytest

from pvdump.blkback.processlock import LockError, ProcessLock


def test_a_second_one_is_told_who_serves(tmp_path):
    with (
        ProcessLock(tmp_path / "lock"),
        pytest.raises(LockError, match=f"process {os.getpid()}; end it first"),
    ):
        ProcessLock(tmp_path / "lock")


def test_the_next_one_serves(tmp_path):
    for _ in range(2):
        with ProcessLock(tmp_path / "lock"):
            pass


def test_one_that_was_killed_leaves_no_lock(tmp_path):
    code = "import os, sys, pathlib; from pvdump.blkback.processlock import ProcessLock\n"
    code += "lock = ProcessLock(pathlib.Path(sys.argv[1])); os.kill(os.getpid(), 9)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code, str(tmp_path / "lock")]
    assert subprocess.run(command, env=environment, check=False).returncode == -9
    with ProcessLock(tmp_path / "lock"):
        pass


@pytest.mark.parametrize("name", ["none/lock", "link"])
def test_one_that_cannot_be_made_is_refused(tmp_path, name):
    (tmp_path / "link").symlink_to("elsewhere")
    with pytest.raises(LockError, match=name):
        ProcessLock(tmp_path / name)
