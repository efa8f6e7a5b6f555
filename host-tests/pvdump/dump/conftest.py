"""A target for the tests of these files; a file that needs another one has its own `disk`."""

from pathlib import Path

import pytest
from fixtures.targets import make, vmcore

from pvfw import superblock


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A target with a whole dump, of targets.vmcore()."""
    path = tmp_path / "disk"
    make(path, superblock.COMPLETE, vmcore())
    return path
