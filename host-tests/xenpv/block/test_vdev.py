"""Names of virtual disks: what xl's `vdev=` calls a disk is what xenstore has a number for."""

import pytest

from xenpv.block import vdev
from xenpv.errors import BadDiskName


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("xvda", 51712),
        ("xvdb", 51728),
        ("xvdb1", 51729),
        ("xvdp15", 51712 + 255),
        ("xvdq", 1 << 28 | 16 << 8),
        ("xvdaa", 1 << 28 | 26 << 8),
        ("hda", 768),
        ("hdb1", 768 + 65),
        ("hdc", 5632),
        ("sda", 2048),
        ("sdb2", 2066),
        ("51728", 51728),
    ],
)
def test_disk_names_become_virtual_device_numbers(name, number):
    assert vdev.number(name) == number


@pytest.mark.parametrize("name", ["", "xvd", "xvd1", "sd", "vda", "/dev/xvdb", "xvdB", "xvdb1234"])
def test_names_that_are_no_disk_are_refused(name):
    with pytest.raises(BadDiskName, match="a name like xvdb expected"):
        vdev.number(name)


@pytest.mark.parametrize(
    "name",
    ["xvda", "xvdb", "xvdb1", "xvdp15", "xvdq", "xvdz3", "xvdaa", "xvdba", "hda", "hdd", "sdb2"],
)
def test_a_number_has_the_name_that_it_was_made_of(name):
    assert vdev.name(vdev.number(name)) == name


@pytest.mark.parametrize("number", [0, 5, 51712 + 256, (1 << 28) + (1 << 24)])
def test_a_number_without_a_name_is_its_own(number):
    assert vdev.name(number) == str(number)
