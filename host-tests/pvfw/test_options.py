"""The image's command line and configuration: what each says, and what is refused."""

import struct
import zlib

import pytest

from pvdump.arm.blob import encode
from pvfw import config, modules, options
from pvfw.config import Config, Target
from pvfw.errors import OptionError
from pvfw.main import ENDS, MODES


def parse(line, door):
    return options.parse(line, door, MODES, ENDS, Config())


def named(chosen):
    """The names of the targets, in order."""
    return [str(target) for target in chosen.places()]


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
    assert named(chosen) == ["xvdc", "xvdb"]


def test_names_that_are_no_disk_leave_the_others_and_are_told_each():
    chosen = parse("pvdump.disk=foo,xvdc,/dev/xvdb,xvdd", "bzimage")
    assert named(chosen) == ["xvdc", "xvdd"]
    assert chosen.problems == [
        "pvdump.disk=foo: a name like xvdb expected",
        "pvdump.disk=/dev/xvdb: a name like xvdb expected",
    ]


@pytest.mark.parametrize("word", ["=", "=foo", "=foo,/dev/xvdb", ""])
def test_names_of_which_none_is_a_disk_are_no_leave_to_take_any(word):
    chosen = parse("pvdump.disk" + word, "bzimage")
    with pytest.raises(OptionError, match=r"pvdump\.disk= names no usable disk"):
        chosen.places()


def test_without_a_name_any_disk_will_do():
    assert named(parse("pvdump.then=halt", "bzimage")) == []


def test_a_wrong_word_is_named_and_the_rest_still_counts():
    chosen = parse("pvdump.then=explode pvdump.dsk=x pvdump.disk=xvdb", "bzimage")
    assert chosen.then == "reboot"
    assert named(chosen) == ["xvdb"]
    assert chosen.problems == [
        "pvdump.then=explode: halt, poweroff, reboot expected",
        "pvdump.dsk is no option of pvdump",
    ]


def test_a_text_module_stands_in_for_a_missing_command_line():
    content = b"#pvdump\n# comment\npvdump.run=check\npvdump.disk=xvda\n"
    assert modules.text(b"a=1", [content]).split() == ["a=1"]
    assert modules.text(b" ", [content]).split() == ["pvdump.run=check", "pvdump.disk=xvda"]
    assert modules.text(b"", [bytes(100)]) == ""


def configuration():
    config = Config()
    config.targets = [Target("xvdc", bytes(16)), Target("xvdb", bytes(16))]
    config.then = "halt"
    config.level = 31
    return config


def loaded(machine, *contents, line=b"", memmap=((0, 16 << 20, 1),)):
    """Options where these modules are loaded."""
    modules = []
    for i, content in enumerate(contents, 1):
        machine.ram[0x5000 * i : 0x5000 * i + len(content)] = content
        modules.append((0x5000 * i, len(content)))
    return options.read(("bzimage", line, tuple(modules), memmap, (0, 1)), MODES, ENDS)


def test_what_the_command_line_does_not_say_is_the_configurations(machine):
    chosen = loaded(machine, encode(configuration()))
    assert named(chosen) == ["xvdc", "xvdb"]
    assert chosen.then == "halt"
    assert chosen.config.level == 31
    assert chosen.problems == []


def test_what_the_command_line_says_counts_before_the_configuration(machine):
    chosen = loaded(machine, encode(configuration()), line=b"pvdump.disk=xvda pvdump.then=poweroff")
    assert named(chosen) == ["xvda"]
    assert chosen.then == "poweroff"
    assert chosen.config.level == 31


def test_a_command_line_whose_names_are_no_disks_gets_none_from_the_configuration(machine):
    chosen = loaded(machine, encode(configuration()), line=b"pvdump.disk=foo")
    with pytest.raises(OptionError, match="no usable disk"):
        chosen.places()


def test_a_target_of_the_configuration_whose_name_is_no_disk_is_told(machine):
    config = configuration()
    config.targets[0].name = "foo"
    chosen = loaded(machine, encode(config))
    assert named(chosen) == ["xvdb"]
    assert chosen.problems == ["target=foo: a name like xvdb expected"]


def test_a_configuration_is_found_in_any_module(machine):
    chosen = loaded(machine, b"\x7fELF", encode(configuration()))
    assert named(chosen) == ["xvdc", "xvdb"]


def test_without_a_configuration_its_place_has_an_empty_one(machine):
    chosen = loaded(machine, b"\x7fELF")
    assert vars(chosen.config) == vars(Config())
    assert chosen.problems == []


def other_version(blob):
    raw = bytearray(blob)
    raw[8] = 2
    return bytes(raw[:-4]) + struct.pack("<I", zlib.crc32(raw[:-4]))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), "the configuration is damaged (CRC)"),
        (lambda raw: raw[:-1], "the configuration is damaged: it says"),
        (other_version, "configuration version 2, this pvdump knows 1"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_told_and_the_command_line_works_alone(
    machine, change, why
):
    blob = change(encode(configuration()))
    chosen = loaded(machine, blob, line=b"elfcorehdr=4096 pvdump.disk=xvdb")
    assert len(chosen.problems) == 1
    assert chosen.problems[0].startswith(why)
    assert chosen.problems[0].endswith(": ignored")
    assert (chosen.elfcorehdr, named(chosen), chosen.then) == (4096, ["xvdb"], "reboot")
    assert vars(chosen.config) == vars(Config())


@pytest.mark.parametrize(
    ("memmap", "there"),
    [
        ((), True),
        (((0, 0x4000, 1), (0x4000, 0x100000, 1)), True),
        (((0, 16 << 20, 2),), False),
        (((0, 0x5010, 1), (0x5010, 0x100000, 1)), False),
        (((0x5001, 0x100000, 1),), False),
    ],
)
def test_a_module_counts_only_inside_one_range_of_ram(machine, memmap, there):
    chosen = loaded(machine, encode(configuration()), memmap=memmap)
    assert chosen.any_disk is not there
    assert [line[-20:] for line in chosen.problems] == [] if there else [": no memory, ignored"]


@pytest.mark.parametrize("module", [(1 << 63, 100), ((1 << 64) - 1, 2)])
def test_a_module_where_no_memory_can_be_is_told(machine, module):
    for memmap in (), ((0, 16 << 20, 1),):
        chosen = options.read(("bzimage", b"", (module,), memmap, (0, 1)), MODES, ENDS)
        assert [line[-19:] for line in chosen.problems] == [" no memory, ignored"]


def test_the_end_actions_of_the_configuration_are_those_of_the_image():
    assert sorted(ENDS) == sorted(config.ENDS)


@pytest.mark.parametrize(
    ("value", "level"),
    [
        ("0", 0),
        ("31", 31),
        ("log", config.LOG_ONLY),
        ("32", 31),
        ("255", 31),
        ("LOG", 31),
        ("", 31),
    ],
)
def test_the_level_is_a_number_of_makedumpfiles_or_log(value, level):
    chosen = parse(f"pvdump.level={value}", "bzimage")
    assert chosen.level == level
    wrong = (
        [] if value in ("0", "31", "log") else [f"pvdump.level={value}: 0 to 31 or log expected"]
    )
    assert chosen.problems == wrong


def test_the_configurations_level_may_be_the_log_alone(machine):
    made = configuration()
    made.level = config.LOG_ONLY
    assert loaded(machine, encode(made)).level == config.LOG_ONLY
    assert loaded(machine, encode(made), line=b"pvdump.level=1").level == 1
