"""The image's command line: both spellings of elfcorehdr, disks, and what is refused."""

import pytest

from pvfw import options
from pvfw.errors import OptionError
from pvfw.main import ENDS, MODES


def parse(line, door, config=None):
    return options.parse(line, door, MODES, ENDS, config or Config())


@pytest.mark.parametrize(
    ("value", "address"),
    [
        ("1031540K", 1031540 << 10),
        ("0x3f000000", 0x3F000000),
        ("0X3F000000", 0x3F000000),
        ("512M", 512 << 20),
        ("5G", 5 << 30),
        ("4096", 4096),
        ("896K@1031540K", 1031540 << 10),
        ("0xe0000@0x3f000000", 0x3F000000),
    ],
)
def test_elfcorehdr_as_both_system_calls_spell_it(value, address):
    assert parse(f"quiet elfcorehdr={value} x=1", "bzimage").elfcorehdr == address


@pytest.mark.parametrize("value", ["", "0", "K", "0x", "-1", "zz", "0x4000000000000", "1.5M"])
def test_an_unusable_elfcorehdr_is_a_problem_and_not_an_address(value):
    chosen = parse("elfcorehdr=" + value, "bzimage")
    assert chosen.elfcorehdr is None
    assert len(chosen.problems) == 1
    assert "elfcorehdr" in chosen.problems[0]


def test_firmware_powers_off_and_a_crash_kernel_reboots_unless_told_otherwise():
    assert parse("", "pvh").then == "poweroff"
    assert parse("", "bzimage").then == "reboot"
    assert parse("pvdump.then=halt", "pvh").then == "halt"


def test_several_disks_stand_in_their_order_each_once():
    chosen = parse("pvdump.disk=xvdc,xvdb,xvdc", "bzimage")
    assert chosen.disks() == ["xvdc", "xvdb"]


def test_names_that_are_no_disk_leave_the_others_and_are_told_each():
    chosen = parse("pvdump.disk=foo,xvdc,/dev/xvdb,xvdd", "bzimage")
    assert chosen.disks() == ["xvdc", "xvdd"]
    assert chosen.problems == [
        "pvdump.disk=foo: a name like xvdb expected",
        "pvdump.disk=/dev/xvdb: a name like xvdb expected",
    ]


@pytest.mark.parametrize("word", ["=", "=foo", "=foo,/dev/xvdb", ""])
def test_names_of_which_none_is_a_disk_are_no_leave_to_take_any(word):
    chosen = parse("pvdump.disk" + word, "bzimage")
    with pytest.raises(OptionError, match=r"pvdump\.disk= names no usable disk"):
        chosen.disks()


def test_without_a_name_any_disk_will_do():
    assert parse("pvdump.then=halt", "bzimage").disks() == []


def test_a_wrong_word_is_named_and_the_rest_still_counts():
    chosen = parse("pvdump.then=explode pvdump.dsk=x pvdump.disk=xvdb", "bzimage")
    assert chosen.then == "reboot"
    assert chosen.disks() == ["xvdb"]
    assert chosen.problems == [
        "pvdump.then=explode: halt, poweroff, reboot expected",
        "pvdump.dsk is no option of pvdump",
    ]


def test_a_configuration_module_stands_in_for_a_missing_command_line(machine):
    blob = b"#pvdump\n# comment\npvdump.run=check\npvdump.disk=xvda\n"
    machine.ram[0x5000 : 0x5000 + len(blob)] = blob
    assert options.text(b"a=1", ((0x5000, len(blob)),)).split() == ["a=1"]
    assert options.text(b" ", ((0x5000, len(blob)),)).split() == [
        "pvdump.run=check",
        "pvdump.disk=xvda",
    ]
    assert options.text(b"", ((0x9000, 100),)) == ""
