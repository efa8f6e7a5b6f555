"""pvdump drgn: its prompt, on a dump that is named or on the newest one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures.stillkernel import StillKernel

from lab.kernel import Kernel

ASK = "print(prog['init_task'].comm.string_().decode(), prog['linux_banner'].string_().decode())\n"


@pytest.fixture
def dump(debian: Kernel, still: StillKernel, tmp_path: Path) -> Path:
    """A folder with a dump of Linux 5.10, in a folder of dumps."""
    folder = tmp_path / "crash" / "2026-11-28"
    folder.mkdir(parents=True)
    (folder / "vmcore").write_bytes(still.vmcore(debian.release))
    return folder


def typed(*words: object) -> str:
    """What drgn's prompt says to ASK."""
    done = subprocess.run(
        [sys.executable, "-m", "pvdump", "drgn", *map(str, words)],
        input=ASK,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    return done.stdout


def test_without_a_name_it_is_the_newest_in_the_folder_that_the_settings_name(
    debian: Kernel, dump: Path, tmp_path: Path
) -> None:
    config = tmp_path / "pvdump.yaml"
    config.write_text(f"directory: {dump.parent}\n")
    said = typed("--config", config)
    assert f"swapper Linux version {debian.release} " in said
    assert typed(dump / "vmcore") == said


def test_a_script_gets_the_words_behind_it(dump: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import sys\nprint(prog['init_task'].comm.string_(), sys.argv[1:])\n")
    assert typed(dump, script, "--config", "none") == "b'swapper' ['--config', 'none']\n"
