"""Unpacked packages seen as a root: links stay inside, libraries are found."""

import pytest

from lab import LabError
from lab.root import Root


@pytest.fixture
def root(tmp_path):
    (tmp_path / "usr/lib").mkdir(parents=True)
    (tmp_path / "lib").symlink_to("usr/lib")
    (tmp_path / "usr/lib/real").write_text("inside")
    return Root(tmp_path)


def test_an_absolute_link_points_into_the_root(root):
    (root.path / "link").symlink_to("/lib/real")
    assert root.find("/link").read_text() == "inside"


def test_a_link_cannot_lead_out(root):
    (root.path / "out").symlink_to("../../../../../../etc/passwd")
    with pytest.raises(LabError, match="is not in the unpacked packages"):
        root.find("/out")


def test_a_loop_of_links_ends(root):
    (root.path / "a").symlink_to("b")
    (root.path / "b").symlink_to("a")
    with pytest.raises(LabError):
        root.find("/a")


def test_files_that_are_no_programs_need_no_libraries(root):
    assert root.libraries(["/usr/lib/real"]) == {}


def test_a_pattern_stands_for_one_file(root):
    (root.path / "lib/other").write_text("")
    assert root.glob("usr/lib/re*").name == "real"
    with pytest.raises(LabError, match="expected one file"):
        root.glob("usr/lib/*")
