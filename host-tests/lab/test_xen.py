"""A Xen that does not come up leaves nothing behind. (The tests that boot one are elsewhere.)"""

import pytest

from lab import LabError, dom0, xen


def test_a_dom0_that_cannot_be_built_leaves_no_folder(tmp_path, monkeypatch):
    def fail(suite, progress):
        raise LabError("no packages")

    monkeypatch.setattr(dom0, "build", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(LabError, match="no packages"):
        xen.Xen().__enter__()
    assert list(tmp_path.iterdir()) == []
