"""/etc/pvdump.yaml: what it may say, and what is refused, with the line."""

from pathlib import Path

import pytest

from pvdump.arm import settings
from pvfw import config

DEFAULTS = {
    "targets": [],
    "level": 31,
    "compress": "zstd",
    "compress_level": 1,
    "recipients": [],
    "log": None,
    "then": None,
    "directory": Path("/var/crash"),
    "keep": 5,
    "keep_free": None,
    "hooks": Path("/etc/pvdump/hooks"),
    "boot_key": None,
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "pvdump.yaml"


@pytest.mark.parametrize("text", [None, "", "# level: 0\n---\n"])
def test_what_is_not_said_has_its_default(file: Path, text: str | None) -> None:
    if text is not None:
        file.write_text(text)
    assert settings.load(file) == DEFAULTS


def test_values_of_one_reading_are_not_those_of_the_next(file: Path) -> None:
    settings.load(file)["targets"].append("changed")
    assert settings.load(file)["targets"] == []


def test_each_key_is_read(file: Path) -> None:
    file.write_text(
        "targets: ['file:/var/crash/pvdump.img', xvdb]\nlevel: log\ncompress: none\n"
        "compress_level: -3\nthen: halt\nlog: clear\n"
        "directory: /srv/crash\nkeep: 3\nkeep_free: 512M\nhooks: /srv/hooks\n"
        "boot_key: /srv/minisign.key\n"
    )
    found = settings.load(file)
    assert [(one.name, one.place) for one in found["targets"]] == [
        ("", Path("/var/crash/pvdump.img")),
        ("xvdb", None),
    ]
    del found["targets"], found["recipients"]
    assert found == {
        "level": config.LOG_ONLY,
        "compress": "none",
        "compress_level": -3,
        "then": "halt",
        "log": "clear",
        "directory": Path("/srv/crash"),
        "keep": 3,
        "keep_free": 512 << 20,
        "hooks": Path("/srv/hooks"),
        "boot_key": Path("/srv/minisign.key"),
    }


def test_a_file_that_was_named_must_be_there(file: Path) -> None:
    with pytest.raises(settings.SettingsError, match=r"pvdump\.yaml: No such file"):
        settings.load(file, needed=True)


def test_a_link_to_nowhere_is_no_absent_file(file: Path) -> None:
    file.symlink_to("nowhere")
    with pytest.raises(settings.SettingsError, match="No such file"):
        settings.load(file)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- xvdb", "line 1: lines such as `level: 31` expected"),
        ("# one\nlevle: 31", "line 2: no setting 'levle'; there are: targets, level,"),
        ("compress-level: 1", "line 1: no setting 'compress-level'"),
        ("then: halt\nlevel: 1\nthen: reboot", "line 3: then is said a second time"),
        ("? [level]\n: 1", "line 1: lines such as"),
        ("level: 32", "line 1: level: '32' is no level: 0 to 31, or log, expected"),
        ("level: 010", "level: '010' is no level"),
        ("level: yes", "level: 'yes' is no level"),
        ("level:", "level: '' is no level"),
        ("level: [1]", "level: a text or a number expected"),
        ("targets: xvdb", "line 1: targets: a list expected"),
        ("targets: [{xvdb: 1}]", "targets: a text or a number expected"),
        ("targets:\n- xvdb\n- foo", "line 3: targets: foo: a name like xvdb expected"),
        ("targets: [xvdb=1]", "targets: '1' is no UUID"),
        (r'targets: ["file:a\0b"]', r"targets: 'a\x00b' is no file's name"),
        (r'targets: ["file:\ud800"]', r"targets: '\ud800' is no file's name"),
        ("recipients: [age1]", "recipients: 'age1' was mistyped"),
        ("log: open", "log: 'open': clear expected"),
        ("then: explode", "then: 'explode': halt or poweroff or reboot expected"),
        ("keep: 0", "keep: '0' is no number of dumps, 1 to"),
        ("keep: five", "keep: 'five' is no number of dumps"),
        ("keep_free: 2GB", "keep_free: '2GB' is not a size such as"),
        ("directory: crash", "directory: 'crash': a name that begins with / expected"),
        ("hooks:", "hooks: a name expected, an empty one found"),
        ("level: 1\n  x: [", "line 2: mapping values are not allowed here"),
        ("level: 'x", "found unexpected end of stream"),
        ("level: *none", "line 1: found undefined alias"),
        ("level: &a [*a]", "level: a text or a number expected"),
        ("level: \x01", "it has bytes that are no text"),
        pytest.param("[" * 2000, "nested too deeply", id="deep"),
        pytest.param("a" * 65537, "has more than 65536 bytes", id="long"),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(file: Path, text: str, message: str) -> None:
    file.write_text(text)
    with pytest.raises(settings.SettingsError) as caught:
        settings.load(file)
    assert str(caught.value).startswith(f"{file}")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
