"""The configuration that a guest is created from again: its file, with the devices of its end."""

import subprocess
import sys

import pytest

from pvdump.dom0 import toolstack, xlcfg
from pvdump.dom0.configuration import Configuration, parse
from pvdump.dom0.toolstack import Xl, XlError, disk, nic, text

UUID = "3f0c1b52-6f61-4b0e-8d2e-0a1b2c3d4e5f"


def known(**devices):
    return Configuration("web", "pvh", {}, devices)


def test_a_disk_is_written_with_all_that_libxl_has_of_it():
    device = {
        "pdev_path": "/srv/a,b.img",
        "vdev": "xvdb",
        "backend": "qdisk",
        "format": "raw",
        "script": "block",
        "readwrite": 0,
        "discard_enable": "False",
    }
    assert disk(device) == (
        "vdev=xvdb,backendtype=qdisk,format=raw,script=block,no-discard,access=ro,"
        "target=/srv/a,b.img"
    )


def test_a_network_interface_keeps_its_address():
    device = {"devid": 0, "mac": "00:16:3e:01:02:03", "bridge": "xenbr0", "nictype": "vif"}
    assert nic(device) == "devid=0,mac=00:16:3e:01:02:03,bridge=xenbr0,type=vif"


def test_a_device_that_cannot_be_written_is_refused_by_name():
    with pytest.raises(XlError, match="disk xvdb: colour cannot be written"):
        disk({"vdev": "xvdb", "colour": "blue"})


def test_devices_of_the_file_are_replaced_by_those_there_were():
    original = 'name = "web"\ndisk = ["target=/old"]\nmemory = 64'
    made = text(original, UUID, known(disks=[{"vdev": "xvda", "pdev_path": "/new"}]))
    assert made.startswith(f'{original}\nuuid = "{UUID}"\n')
    assert made.endswith('disk = ["vdev=xvda,access=ro,target=/new"]\nvif = []\n')
    assert xlcfg.settings(made)["memory"].value == "64"


def test_a_name_that_ends_a_string_is_refused():
    with pytest.raises(XlError, match="cannot be written"):
        text("", UUID, known(disks=[{"vdev": "xvda", "pdev_path": "/a'\"b"}]))


def test_an_xl_that_waits_for_the_guest_is_known_by_its_log(tmp_path, monkeypatch):
    folder = tmp_path / "proc/12/fd"
    folder.mkdir(parents=True)
    (tmp_path / "proc/12/comm").write_text("xl\n")
    (folder / "1").symlink_to("/var/log/xen/xl-web.log")
    monkeypatch.setattr(toolstack, "PROCESSES", tmp_path / "proc")
    assert Xl().waits_for("web")
    assert not Xl().waits_for("we")
    assert not Xl().waits_for("w.b")


def test_processes_of_this_machine_are_read_without_harm():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        assert not Xl().waits_for("no-guest-has-this-name")
        process.communicate(b"\n")


def test_what_is_no_configuration_counts_as_none():
    assert [parse(each) for each in ("", "[]", "{}", '{"c_info": 1}', "{" * 9999)] == [None] * 5
