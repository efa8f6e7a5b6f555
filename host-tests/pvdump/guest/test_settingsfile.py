"""A key of the settings' file gets another value; comments and other keys stay."""

import pytest

from pvdump.guest.settingsfile import edited
from pvfw.errors import DumpError


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "targets: [xvdb]\n"),
        ("level: 31", "level: 31\ntargets: [xvdb]\n"),
        ("# a\n#targets: []\n# b\n", "# a\ntargets: [xvdb]\n# b\n"),
        ("targets: []  # why\nlevel: 1\n", "targets: [xvdb]  # why\nlevel: 1\n"),
        ("targets:\n  - a\n  - b # c\n# d\nlevel: 1\n", "targets: [xvdb] # c\n# d\nlevel: 1\n"),
        ("targets:\n- a\n\n# d\nlevel: 1\n", "targets: [xvdb]\n\n# d\nlevel: 1\n"),
        ("targets: [a,\n  b]\nlevel: 1\n", "targets: [xvdb]\nlevel: 1\n"),
        ("targets:\nlevel: 1\n", "targets: [xvdb]\nlevel: 1\n"),
        ("\N{LATIN SMALL LETTER U WITH DIAERESIS}: 1\ntargets: x\n", None),
    ],
)
def test_targets_are_written(before: str, after: str | None) -> None:
    if after is None:
        after = before.replace("targets: x", "targets: [xvdb]")
    assert edited(before, {"targets": ["xvdb"]}) == after


@pytest.mark.parametrize(
    "name", ["file:/var/crash/pvdump.img", "file:/a b/c", 'file:/a"b\\c', "file:/a: b", "file:/[#]"]
)
def test_name_of_any_form_is_read_as_it_was_meant(name: str) -> None:
    import yaml

    text = edited("keep: 3\n", {"targets": [name, "xvdb"]})
    assert yaml.safe_load(text) == {"keep": 3, "targets": [name, "xvdb"]}


def test_several_keys_are_written() -> None:
    text = edited("# x\nlevel: 31 # all\n", {"level": "17", "targets": ["xvdb"]})
    assert text == "# x\nlevel: 17 # all\ntargets: [xvdb]\n"


@pytest.mark.parametrize("text", ["{level: 1}\n", "--- \nlevel: 1\n...\n"])
def test_form_that_is_not_edited_gives_the_line_to_write(text: str) -> None:
    with pytest.raises(DumpError, match=r"write `targets: \[xvdb\]` into the settings by hand"):
        edited(text, {"targets": ["xvdb"]})
