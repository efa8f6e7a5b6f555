"""Guests' files: what xl reads in them is read, and one setting is changed and nothing else."""

import pytest

from pvdump.dom0 import xlcfg
from pvdump.dom0.xlcfg import BadFile, changed, kind, settings

FILE = """\
# on_soft_reset = "destroy"
name = 'web'; type="pvh"
memory = 512   # MiB
disk = [ "format=raw,vdev=xvda,access=rw,target=/dev/vg/web",
         'on_soft_reset = "destroy"', ]
on_crash = "restart"
"""


def values(text: str) -> dict[str, str]:
    return {name: each.value for name, each in settings(text).items()}


def test_strings_and_numbers_are_read() -> None:
    expected = {"name": "web", "type": "pvh", "memory": "512", "on_crash": "restart"}
    assert values(FILE) == expected


def test_the_last_of_two_counts() -> None:
    assert values('type = "pv"\ntype = "pvh"\n')["type"] == "pvh"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('type = "pvh"', "pvh"),
        ('type = "hvm"', "hvm"),
        ("pvh = 1", "pvh"),
        ('builder = "hvm"', "hvm"),
        ('builder = "generic"', "pv"),
        ('builder = "hvm"\ntype = "pvh"', "pvh"),
        ("", "pv"),
    ],
)
def test_the_type_is_the_one_that_xl_makes(text: str, expected: str) -> None:
    assert kind(settings(text)) == expected


def test_a_line_is_added_at_the_end() -> None:
    assert changed(FILE, "on_soft_reset", "preserve") == f'{FILE}on_soft_reset = "preserve"\n'


def test_a_file_without_a_last_newline_gets_one() -> None:
    assert changed("memory = 1", "a", "b") == 'memory = 1\na = "b"\n'


def test_a_value_is_changed_where_it_stands() -> None:
    text = "on_soft_reset='destroy' # was\nmemory = 512\n"
    assert changed(text, "on_soft_reset", "preserve") == (
        'on_soft_reset="preserve" # was\nmemory = 512\n'
    )


def test_what_is_no_such_file_is_refused_with_its_line() -> None:
    with pytest.raises(BadFile, match=r"^line 2: not as xl.cfg"):
        settings("name = 'a'\n<domain type='xen'>\n")


def test_a_change_is_read_back() -> None:
    assert xlcfg.settings(changed(FILE, "on_soft_reset", "preserve"))["on_soft_reset"].value == (
        "preserve"
    )
