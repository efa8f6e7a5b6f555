"""The command that installs a module is one that pip takes, for the Python that runs."""

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from pvdump import pip


def test_it_is_for_the_python_that_runs() -> None:
    assert pip.install("drgn") == f"{sys.executable} -m pip install drgn"


@pytest.mark.parametrize("is_managed", [True, False])
def test_a_python_that_a_distribution_manages_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_managed: bool
) -> None:
    monkeypatch.setattr(sys, "prefix", sys.base_prefix)
    monkeypatch.setattr(sysconfig, "get_path", lambda name: str(tmp_path))
    if is_managed:
        (tmp_path / pip.MARKER).touch()
    assert ("install --break-system-packages drgn" in pip.install("drgn")) == is_managed


def test_pip_takes_the_options() -> None:
    words = [sys.executable, "-m", "pip", "install", "--help"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    assert "--break-system-packages" in said
