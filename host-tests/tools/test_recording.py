"""The picture of a session has all of its text, and is that of the text beside it."""

import re
import xml.etree.ElementTree as ET
from pathlib import Path

from tools import recording

DOCS = Path(__file__).resolve().parents[2] / "docs"
SVG = "{http://www.w3.org/2000/svg}"


def rows(picture):
    """The rows of text of a picture, from the top, with their places."""
    found = ET.fromstring(picture).iter(f"{SVG}text")
    return [(float(each.get("y")), each.text or "") for each in found]


def shifts(picture):
    """How far the text is moved, at each stop."""
    return [int(each) for each in re.findall(r"% { transform: translateY\((-?\d+)px\)", picture)]


def test_the_picture_of_the_readme_is_that_of_its_text():
    picture = (DOCS / "session.svg").read_text()
    assert picture == recording.svg((DOCS / "session.txt").read_text())
    assert len(picture) < 60_000
    assert "docs/session.svg" in (DOCS.parent / "README.md").read_text()


def test_every_line_is_there_in_its_order_and_as_it_is():
    text = "# ls <a> & b\n\n  x   y\n\u00fc\n"
    found = rows(recording.svg(text))
    assert [each for _, each in found] == text.splitlines()
    assert [at for at, _ in found] == sorted(at for at, _ in found)


def test_a_line_that_is_too_long_goes_on_in_the_next_row():
    text = "0123456789" * 30
    found = [each for _, each in rows(recording.svg(text))]
    assert ("".join(found), len(found)) == (text, 3)
    assert max(map(len, found)) == recording.COLUMNS


def test_it_begins_empty_scrolls_on_and_ends_with_the_last_rows():
    picture = recording.svg("\n".join(map(str, range(100))))
    found = shifts(picture)
    assert found[0] == recording.ROWS * recording.HEIGHT
    assert found == sorted(found, reverse=True)
    last = rows(picture)[-1][0] + found[-1]
    bottom = recording.MARGIN + recording.ROWS * recording.HEIGHT
    assert bottom - recording.HEIGHT < last < bottom


def test_without_motion_the_last_rows_are_shown():
    picture = recording.svg("\n".join(map(str, range(100))))
    still = re.search(r"#t { transform: translateY\((-?\d+)px\)", picture)
    assert int(still[1]) == shifts(picture)[-1]


def test_a_picture_is_made_by_its_command(tmp_path):
    (tmp_path / "a.txt").write_text("# true\n")
    assert recording.main([str(tmp_path / "a.txt"), str(tmp_path / "a.svg")]) == 0
    assert (tmp_path / "a.svg").read_text() == recording.svg("# true\n")
