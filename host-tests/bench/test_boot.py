"""What is printed of boots: medians, and when each peer must have entered the kernel."""

import json

import pytest

from bench import boot
from bench.boot import DIRECT, GRUB, HVM, HVM_GRUB, OURS, PYGRUB, Boot, Way
from bench.pygrub import ByPygrub

DISK = {"vdev": "xvda", "size": 1}


def ways():
    """Ways with three boots each; times of the peers are as those of GRUB."""
    ours = [Boot(0.5, 0.9, first, 7, 100, 80) for first in (5, 3.9, 3)]
    peers = [Boot(0.5, None, first, 23, None, None) for first in (19, 20, 40)]
    found = dict.fromkeys((GRUB, DIRECT, PYGRUB, HVM_GRUB), peers)
    found |= dict.fromkeys((OURS, HVM), ours)
    return {name: Way({}, boots=list(boots)) for name, boots in found.items()}


def printed(capsys):
    lines = map(json.loads, capsys.readouterr().out.splitlines())
    return {line["name"]: (line["ours"], line["peer"], line["ratio"]) for line in lines}


def test_grubs_jump_is_its_first_line_less_what_the_kernel_takes_to_it(capsys):
    boot.figures(ways())
    found = printed(capsys)
    # From 0.9 to 3.9 it is the kernel; so GRUB has entered it at 17.
    assert found[f"boot, {OURS}, unpause to jump, beside {GRUB}"] == (0.9, 17.0, 18.89)
    assert found[f"boot, {OURS}, unpause to Linux' first line, beside {GRUB}"] == (3.9, 20, 5.13)
    assert found[f"boot, {OURS}, xl create to Linux' first line, beside {PYGRUB}"][:2] == (
        4.4,
        20.5,
    )
    assert found[f"boot, {HVM}, kernel and initrd, beside Linux' reading"] == (100, 80, 1.25)


def test_who_reads_the_kernel_before_the_guest_runs_has_no_jump(capsys):
    boot.figures(ways())
    jumps = [name for name in printed(capsys) if "to jump" in name]
    assert [name.partition("beside ")[2] for name in jumps] == [GRUB, HVM_GRUB]


@pytest.mark.parametrize(
    ("line", "kib"),
    [("pvdump: Debian GNU/Linux: kernel 13832 KiB, initrd 5314 KiB, read in 83 ms\r", "13832")],
)
def test_the_line_before_the_jump_is_found(line, kib):
    assert boot.JUMP.search(f"pvdump: firmware at 0x100000, 2928 KiB\r\n{line}\n")[1] == kib


def test_xl_gets_the_kernel_of_pygrub_alone():
    guest = ByPygrub.parse({"name": "a", "type": "pvh", "kernel": "disk", "disks": [DISK]})
    lines = guest.config("/job/guest/a", ["/dev/sda"]).splitlines()
    assert 'bootloader = "pygrub"' in lines
    assert not [line for line in lines if line.startswith(("kernel", "cmdline"))]
