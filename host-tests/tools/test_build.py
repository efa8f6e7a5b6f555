"""build.py: its messages on first use."""

import subprocess
import sys

import pytest

import build as entry
from build import COMMANDS
from tools import hostdeps
from tools.lint import ROOT


def build(*arguments: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run build.py as a person does, without the environment the tests run in."""
    return subprocess.run(
        [sys.executable, str(ROOT / "build.py"), *arguments],
        env={"PATH": "/usr/bin:/bin", **variables},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize(("arguments", "code"), [(["--help"], 0), (["help"], 0), ([], 2)])
def test_help_needs_nothing_and_names_every_command(arguments: list[str], code: int) -> None:
    done = build(*arguments)
    assert done.returncode == code
    assert set(COMMANDS) <= set(done.stdout.split())


def test_the_host_is_looked_at_for_every_command() -> None:
    assert set(hostdeps.EVERY) == set(COMMANDS)


def test_unknown_command_is_wrong_usage() -> None:
    done = build("imge")
    assert done.returncode == 2
    assert "no command 'imge'" in done.stderr


def test_unusable_cache_is_one_clear_line() -> None:
    done = build("lint", PVDUMP_CACHE="/proc/nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("build.py lint: the cache /proc/nowhere cannot be used")
    assert done.stderr.count("\n") == 1


def test_old_python_is_told_before_anything_else() -> None:
    script = "import sys; sys.version_info = (3, 9, 2); exec(open(sys.argv[1]).read())"
    command = [sys.executable, "-c", script, str(ROOT / "build.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "build.py needs Python 3.11 or newer, this is 3.9\n"


def test_fuzz_gives_pytest_no_word_that_it_takes_for_a_path(monkeypatch):
    given = []
    monkeypatch.setattr(entry, "module", lambda name, words: given.extend(words) or 0)
    entry.fuzz(["printk", "--seed", "3"])
    entry.fuzz(["printk"])
    assert [word for word in given if not word.startswith("-")] == []
