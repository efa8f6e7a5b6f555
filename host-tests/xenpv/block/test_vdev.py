"""Names of virtual disks and their numbers: xl's in both directions, and Linux's to find a disk."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xenpv.block import vdev
from xenpv.errors import BadDiskName

EXTENDED = 1 << 28
NAMES = [
    ("xvda", 51712),
    ("xvdb", 51728),
    ("xvdb1", 51729),
    ("xvdp15", 51712 + 255),
    ("xvda16", EXTENDED | 16),
    ("xvdq", EXTENDED | 16 << 8),
    ("xvdz3", EXTENDED | 25 << 8 | 3),
    ("xvdaa", EXTENDED | 26 << 8),
    ("xvdzz255", EXTENDED | 701 << 8 | 255),
    ("hda", 768),
    ("hdb1", 768 + 65),
    ("hdc", 5632),
    ("hdd24", 5720),
    ("sda", 2048),
    ("sdb2", 2066),
]


@pytest.mark.parametrize(("name", "number"), NAMES)
def test_a_disk_s_name_and_its_number_stand_for_each_other(name, number):
    assert vdev.number(name) == number
    assert vdev.name(number) == name


def test_the_name_of_a_low_number_stands_for_that_number_alone():
    names = [vdev.name(number) for number in range(1 << 16)]
    assert [vdev.number(name) for name in names] == list(range(1 << 16))


@given(st.integers(0, (1 << 32) - 1) | st.integers(EXTENDED, EXTENDED + (1 << 20)))
def test_the_name_of_any_number_stands_for_that_number_alone(number):
    assert vdev.number(vdev.name(number)) == number


@pytest.mark.parametrize(
    "number",
    [0, 5, 51712 + 256, 984, 5760, EXTENDED | 1 << 8, EXTENDED | 702 << 8, EXTENDED + (1 << 24)],
)
def test_a_number_without_a_name_is_its_own(number):
    assert vdev.name(number) == str(number)


@pytest.mark.parametrize(
    "name",
    [
        *("", "xvd", "xvd1", "sd", "vda", "/dev/xvdb", "xvdB", "xvdb1234", "xvdb256", "xvdaaa"),
        *("xvdb0", "xvdb01", "sdq", "sda16", "hde", "hda64", "051728", "+5", "4294967296", "xvdé"),
    ],
)
def test_names_that_are_no_disk_are_refused(name):
    with pytest.raises(BadDiskName, match="a name like xvdb expected"):
        vdev.number(name)


# Source: Linux drivers/block/xen-blkfront.c (xen_translate_vdev, xlvbd_alloc_gendisk).
LINUX = [
    ("xvda", 768),
    ("xvdb", 832),
    ("xvdb", 833),
    ("xvdc", 5632),
    ("xvdd", 5696),
    ("xvdd", 984),
    ("xvda", 2048),
    ("xvdb2", 2066),
    ("xvdp15", 2048 + 255),
    ("xvdq", 65 << 8),
    ("xvddx", 71 << 8 | 240),
    ("xvddy", 128 << 8),
    ("xvdiv15", 135 << 8 | 255),
    ("xvdb", EXTENDED | 1 << 8),
    ("xvdb1", EXTENDED | 1 << 8 | 1),
]


@pytest.mark.parametrize(("name", "number"), LINUX)
def test_a_disk_is_found_by_the_name_that_linux_gives_it(name, number):
    others = [51712 + 128, 2048 + 128, 72 << 8, EXTENDED | 1 << 20]
    assert vdev.find(name, [*others, number]) == number


@pytest.mark.parametrize(("name", "number"), NAMES)
def test_a_disk_is_found_by_xl_s_name_before_linux_s(name, number):
    assert vdev.find(name, [*(other for _, other in LINUX), number]) == number


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("hdb", 51728),
        ("sdb", 51728),
        ("51728", 832),
        ("xvdb", 51729),
        ("xvdb1", 832),
        ("xvdb", 64 << 8),
        ("xvdb", EXTENDED | 1 << 20 | 1 << 8),
        ("xvdb", 2 * EXTENDED | 1 << 8),
    ],
)
def test_a_disk_is_found_by_no_other_name(name, number):
    assert vdev.find(name, [number]) is None
