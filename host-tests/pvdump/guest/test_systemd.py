"""What the units wait for is what the settings name, whatever they name."""

import shutil
import subprocess
from pathlib import Path

import pytest
from fixtures.guestroot import GuestRoot

from pvdump.arm import settings
from pvdump.guest import systemd
from pvdump.guest.systemd import UnitError
from pvdump.place import filesystem


def waits(**changed: object) -> list[str]:
    """The lines of the unit for settings of which some are changed."""
    values = {name: setting.default for name, setting in settings.SETTINGS.items()}
    return systemd.waits({**values, **changed}).splitlines()[2:]


def test_folders_of_dumps_and_hooks_are_waited_for() -> None:
    assert waits() == ["RequiresMountsFor=/etc/pvdump/hooks", "RequiresMountsFor=/var/crash"]
    assert waits(directory=Path("/srv/dumps"), hooks=Path("/opt/hooks")) == [
        "RequiresMountsFor=/opt/hooks",
        "RequiresMountsFor=/srv/dumps",
    ]


@pytest.mark.parametrize(
    ("target", "lines"),
    [
        ("file:/srv/pvdump.img", ["RequiresMountsFor=/srv"]),
        ("xvdb", ["Wants=dev-xvdb.device", "After=dev-xvdb.device"]),
        ("file:/dev/xvda3", ["Wants=dev-xvda3.device", "After=dev-xvda3.device"]),
        (
            "file:/dev/mapper/vg0-dump",
            ["Wants=dev-mapper-vg0\\x2ddump.device", "After=dev-mapper-vg0\\x2ddump.device"],
        ),
    ],
)
def test_each_target_is_waited_for(target: str, lines: list[str]) -> None:
    found = waits(targets=[settings.target("file:/var/crash/x"), settings.target(target)])
    assert sorted(found) == sorted([*waits(), *lines])


def test_place_that_a_link_leads_to_is_waited_for_too(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    assert waits(directory=tmp_path / "link")[1:] == [
        f"RequiresMountsFor={tmp_path.resolve() / name}" for name in ("disk", "link")
    ]


# As `systemd-escape --path --suffix=device` of systemd 252 has them.
DEVICES = {
    "/dev/xvdb": r"dev-xvdb.device",
    "/dev/mapper/vg0-dump it": r"dev-mapper-vg0\x2ddump\x20it.device",
    "/dev/vg-0/a\\b": r"dev-vg\x2d0-a\x5cb.device",
    "/dev/.x/ü%": r"dev-.x-\xc3\xbc\x25.device",
    "/dev//x:1_2/": r"dev-x:1_2.device",
}


@pytest.mark.parametrize("name", DEVICES)
def test_device_has_the_name_that_systemd_gives_it(name: str) -> None:
    assert systemd.device_unit(Path(name)) == DEVICES[name]


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("/srv/dumps", "/srv/dumps"),
        ("/srv/50%", "/srv/50%%"),
        ("/srv/of mine", '"/srv/of mine"'),
        ('/srv/"a\\b"', r'"/srv/\"a\\b\""'),
        ("/srv/it's;#", '"/srv/it\'s;#"'),
    ],
)
def test_name_of_a_folder_is_written_as_systemd_reads_it(name: str, word: str) -> None:
    assert systemd.quoted(Path(name)) == word


@pytest.mark.parametrize("name", ["/srv/a\nb", "/srv/\x1b[1m", "/srv/\udcff"])
def test_name_that_no_unit_can_have_is_refused(name: str) -> None:
    with pytest.raises(UnitError, match="no unit of systemd can name"):
        systemd.quoted(Path(name))


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd on this host")
def test_systemd_reads_the_units_and_the_file_of_setup(tmp_path: Path) -> None:
    folder = tmp_path / "etc/systemd/system"
    shutil.copytree(systemd.PACKAGED, folder)
    unit = folder / "pvdump-collect.service"
    (tmp_path / "usr/bin").mkdir(parents=True)
    shutil.copy("/bin/true", tmp_path / "usr/bin/pvdump")
    (folder / f"{unit.name}.d").mkdir()
    names = ["/srv/of mine", "/srv/50%Q", '/srv/"a\\b"', "/srv/ü"]
    text = "".join(
        line
        for each in names
        for line in systemd.waits(
            {"directory": Path(each), "hooks": Path("/x"), "targets": []}
        ).splitlines(keepends=True)
    )
    more = systemd.DEVICE.format(systemd.device_unit(Path("/dev/vg0/a-b")))
    (folder / f"{unit.name}.d/pvdump.conf").write_text(text + more)
    done = subprocess.run(
        ["systemd-analyze", "--man=no", f"--root={tmp_path}", "verify", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "pvdump" not in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("settings_text", "is_waiting"),
    [
        ("targets: [xvdb]\n", True),
        ("targets: [xvdb]\nkeep: 2\n", True),
        ("targets: [xvdb]\ndirectory: /srv/dumps\n", False),
        ("targets: [xvdb]\nhooks: /srv/hooks\n", False),
        ("targets: [xvdb, xvdc]\n", False),
        ('targets: [xvdb]\ndirectory: "/srv/a\\nb"\n', False),
    ],
)
def test_settings_that_changed_since_setup_are_seen(
    guest: GuestRoot, settings_text: str, is_waiting: bool
) -> None:
    guest.write("etc/pvdump.yaml", settings_text)
    assert guest.facts().waiting == is_waiting


MOUNTS = """\
21 1 202:1 / / rw,relatime shared:1 - ext4 /dev/xvda1 rw
35 21 0:31 / /srv/of\\040mine rw - {kind} {kind} rw
36 35 202:2 / /srv/of\\040mine/local rw - xfs /dev/xvda2 rw
"""


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "tmpfs"])
def test_dump_in_swap_is_not_collected_into_what_is_mounted_after_swap(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    path = tmp_path / "mountinfo"
    path.write_text(MOUNTS.format(kind=kind))
    monkeypatch.setattr(filesystem, "MOUNTS", path)
    values = {"directory": Path("/srv/of mine/dumps"), "hooks": Path("/x"), "targets": []}
    with pytest.raises(UnitError, match=f"is on {kind}, which is mounted after swap is in use"):
        systemd.files(tmp_path, values, True)
    assert systemd.files(tmp_path, values, False)
    for name in ("/srv", "/srv/of mine/local/dumps", "/srv/of mine2"):
        assert systemd.files(tmp_path, {**values, "directory": Path(name)}, True)
