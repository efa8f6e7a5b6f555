"""Guests that are scripts, as `./build.py lab SCRIPT.py` makes them: what xl gets."""

import pytest

from lab import LabError, __main__
from lab.guest import Guest
from lab.scripts import guests
from pvdump.script import text

BODY = "print(1)\n"


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "one.py"
    path.write_text(BODY)
    return path


def config(guest):
    return guest.config("/job/guest/g", ["/dev/sda"] * len(guest.disks)).splitlines()


def test_a_pvh_guest_has_the_script_as_its_ramdisk(script):
    (guest,) = guests([script], False, [], [])
    lines = config(guest)
    assert 'type = "pvh"' in lines
    assert 'ramdisk = "/job/guest/g/ramdisk"' in lines
    assert 'cmdline = "pvdump.run=script"' in lines
    assert guest.text() == b"#!pvboot\n" + BODY.encode()
    assert [(disk.vdev, disk.size) for disk in guest.disks] == [("xvdb", 128)]


def test_in_hvmloader_s_place_options_and_script_are_one_text(script):
    (guest,) = guests([script], True, [], [])
    assert 'bios_path_override = "/job/guest/g/module"' in config(guest)
    assert guest.text() == b"#pvdump\npvdump.run=script\n#!pvboot\n" + BODY.encode()


def test_disks_are_the_first_one_s_and_modules_are_for_all(script, tmp_path):
    module, disk = tmp_path / "two.py", tmp_path / "disk"
    module.write_text("x = 1\n")
    disk.write_bytes(bytes(1024))
    one, two = guests([script, script], False, [module], [disk, disk])
    assert [one.name, two.name] == ["script1", "script2"]
    assert [each.vdev for each in one.disks] == ["xvdb", "xvdc"]
    assert two.disks == ()
    assert two.text() == text.compose(BODY.encode(), {"two.py": b"x = 1\n"})


def test_a_guest_s_file_names_its_script(script, tmp_path):
    path = tmp_path / "guest.yaml"
    path.write_text("type: pvh\nkernel: pvboot-elf\nscript: one.py\ncmdline: pvdump.run=shell\n")
    guest = Guest.load(path)
    assert guest.text().endswith(BODY.encode())
    assert 'cmdline = "pvdump.run=shell"' in config(guest)


def test_too_many_are_refused(script):
    with pytest.raises(LabError, match="3 scripts; two at most"):
        guests([script] * 3, False, [], [])
    with pytest.raises(LabError, match="16 disks; 15 at most"):
        guests([script], False, [], [script] * 16)


def test_a_script_that_cannot_be_used_is_refused_before_xen_starts(tmp_path):
    path = tmp_path / "guest.yaml"
    path.write_text("type: pvh\nkernel: pvboot-elf\nscript: none.py\n")
    with pytest.raises(LabError, match=r"none\.py"):
        Guest.load(path).text()
    (tmp_path / "none.py").write_bytes(b"\xff")
    with pytest.raises(LabError, match="byte 0 is no UTF-8"):
        Guest.load(path).text()


def test_options_of_scripts_need_one(monkeypatch, capsys):
    for words in (["--firmware"], ["--with", "x"], ["--disk", "x"]):
        monkeypatch.setattr("sys.argv", ["lab", "guest.yaml", *words])
        with pytest.raises(SystemExit, match="2"):
            __main__.main()
        assert "are for scripts" in capsys.readouterr().err
