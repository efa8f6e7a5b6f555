"""The end of the image: the end action asked for, and one line for each refusal.

A refusal changes not a byte of the disk.
"""

import re

import pytest
from fixtures import streamreader
from fixtures.crashedguest import AT, GOOD, NOTES, SIZE, UUID, Crash

from pvdump.arm.blob import encode
from pvfw import superblock
from pvfw.config import Config, Target
from pvxen import elfcorehdr
from pvxen.crashedkernel import CrashedKernel
from pvxen.sink import Memory
from xenpv import abi

PIECES = 1500
LARGE_AT = 0x1000000  # where an elfcorehdr of a MiB has room
CONFIG_AT = 0x18C0000


@pytest.mark.parametrize(
    ("word", "reason"),
    [("reboot", abi.SHUTDOWN_reboot), ("poweroff", abi.SHUTDOWN_poweroff)],
)
def test_the_end_action_is_the_one_asked_for(word, reason, capsys):
    crash = Crash(f"elfcorehdr=0x{AT:x} pvdump.disk=xvdb pvdump.then={word}")
    assert crash.run() == reason


def test_a_failure_ends_in_the_end_action_too(capsys):
    assert Crash("pvdump.then=reboot").run() == abi.SHUTDOWN_reboot


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ({"cmdline": "pvdump.disk=xvdb pvdump.then=poweroff"}, "no usable elfcorehdr="),
        ({"cmdline": GOOD.replace(f"0x{AT:x}", "junk")}, "no usable elfcorehdr="),
        ({"cmdline": GOOD.replace(f"0x{AT:x}", "0x100000")}, "no ELF core header at elfcorehdr="),
        (
            {"cmdline": GOOD.replace("pvdump.disk=xvdb", ""), "superblock": bytes(512)},
            "none of xvdb takes the dump, nothing on them was changed",
        ),
        ({"cmdline": GOOD.replace("xvdb", "dvxb")}, "pvdump.disk= names no usable disk"),
        ({"cmdline": GOOD.replace("xvdb", "xvdc")}, "no disk xvdc .*this guest has 51728"),
        ({"superblock": bytes(512)}, "xvdb refused, nothing on it was changed: no pvdump super"),
        ({"superblock": b"\xff" * 512}, "xvdb refused, nothing on it was changed: no pvdump super"),
        ({"disk_size": (1 << 20) + (64 << 10)}, "it is too small: the dump has"),
        ({"read_only": True}, "the disk is read-only"),
        ({"stuck_closing": True}, "is Closing after 300 s"),
        ({"never_connects": True}, "connecting: .* is InitWait after 300 s"),
        ({"error_after": 0}, r"write of sector 0 failed: status -1 \(ERROR\)"),
        ({"sector_size": 8192}, "sector-size is '8192'"),
    ],
)
def test_what_cannot_be_dumped_is_refused_in_one_line(setup, message, capsys):
    crash = Crash(**setup)
    if "stuck_closing" in setup:
        CrashedKernel(crash.guest).connect(crash.back)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert bytes(crash.disk.data) == crash.before
    failed = [line for line in capsys.readouterr().out.splitlines() if "dump failed:" in line]
    assert len(failed) == 1
    assert re.search(message, failed[0])
    assert crash.reported("state") == "failed"
    assert crash.reported("reason")
    assert crash.reported("reason") in failed[0]


@pytest.mark.parametrize("state", [superblock.WRITING, superblock.COMPLETE, superblock.PARTIAL])
def test_a_dump_that_nobody_collected_is_not_overwritten(state, capsys):
    block = superblock.Superblock(UUID, SIZE)
    block.state = state
    crash = Crash(superblock=block.encode())
    crash.run()
    assert bytes(crash.disk.data) == crash.before
    assert f"it holds a dump ({superblock.STATE_NAMES[state]})" in capsys.readouterr().out


@pytest.mark.parametrize("store", ["absent", "late"])
def test_without_xenstore_the_reason_is_on_the_console_alone(store, capsys):
    crash = Crash(guest={"store": store})
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert "dump failed: no xenstore" in capsys.readouterr().out
    assert bytes(crash.disk.data) == crash.before


def test_a_store_port_that_is_closed_ends_in_a_line_and_the_end_action(capsys):
    crash = Crash()
    machine = crash.guest.machine
    machine.evtchn.close(machine.domid, machine.params[abi.HVM_PARAM_STORE_EVTCHN])
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert "dump failed: EVTCHNOP_send port" in capsys.readouterr().out
    assert bytes(crash.disk.data) == crash.before


def test_memory_in_very_many_pieces_is_dumped(capsys):
    loads = [(0, 0x100000 + 0x2000 * i, 0x100000 + 0x2000 * i, 0x1000) for i in range(PIECES)]
    crash = Crash(f"elfcorehdr=0x{LARGE_AT:x} pvdump.disk=xvdb pvdump.then=poweroff")
    elfcorehdr.build(crash.guest.machine.ram, LARGE_AT, loads, NOTES, 0x1800000)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE
    found = streamreader.read(bytes(crash.disk.data))
    assert len(found.memory) == len(found.pages) == PIECES


def configured(blob, cmdline):
    """A guest that crashed, with a configuration beside the image."""
    crash = Crash(cmdline, guest={"modules": ((CONFIG_AT, len(blob)),)})
    crash.guest.machine.ram[CONFIG_AT : CONFIG_AT + len(blob)] = blob
    return crash


def configuration():
    config = Config()
    config.targets = [Target("xvdb", UUID)]
    config.then = "poweroff"
    return config


def test_the_configuration_says_the_target_and_the_end_action(capsys):
    crash = configured(encode(configuration()), f"elfcorehdr=0x{AT:x}")
    crash.guest.disk("xvda", Memory(1 << 20))
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE
    assert "disk xvda" not in capsys.readouterr().out


def test_a_damaged_configuration_is_told_and_the_dump_made_as_the_command_line_says(capsys):
    crash = configured(encode(configuration())[:-1] + b"?", GOOD)
    assert crash.run() == abi.SHUTDOWN_poweroff
    assert crash.superblock().state == superblock.COMPLETE
    assert "pvdump: the configuration is damaged (CRC): ignored\n" in capsys.readouterr().out
