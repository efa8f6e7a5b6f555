"""What a crash took is told from the guest's console, and its dump is checked."""

import re
from types import SimpleNamespace

import pytest

from bench import crash
from bench.crash import OURS, Dump, linux_kdump
from lab import LabTimeout

PANIC = "[    3.1] Kernel panic - not syncing: sysrq triggered crash\n"
BOOT = "[    0.0] Linux version 6.1\nlab: run\nbench: armed\n"
THEIRS = """\
[    0.0] Linux version 6.1
kdump: init
kdump: l 0, 9000 bytes, 1.50 s
kdump: dd 0, 8000 bytes, 2.25 s
"""


class Console:
    """A domain whose console has said all there will be."""

    def __init__(self, text):
        self.text, self.domid = text, 7

    def console(self):
        return self.text

    def type(self, line):
        pass

    def wait_end(self, seconds):
        pass

    def wait_console(self, pattern, timeout=0):
        if found := re.search(pattern, self.text, re.MULTILINE):
            return found
        raise LabTimeout(pattern)


def measured(text, kind, monkeypatch):
    """What is told of a crash with this console."""
    ran = iter((10.0, 12.5))
    monkeypatch.setattr(crash, "ran", lambda xen, domid: next(ran))
    return crash._measured(SimpleNamespace(), Console(text), kind, None)


def test_each_way_of_linux_kdump_has_its_figures(monkeypatch):
    found = measured(BOOT + PANIC + THEIRS, linux_kdump("l", "dd"), monkeypatch)
    assert found.dumps == {"l": Dump(9000, 0, 1.5), "dd": Dump(8000, 0, 2.25)}
    assert found.cpu == 2.5


@pytest.mark.parametrize(
    "text",
    [
        "bench: not loaded\nbench: armed\n",
        BOOT + PANIC,
        BOOT + PANIC + "[    0.0] Linux version 6.1\n" + PANIC,
        BOOT + PANIC + THEIRS.replace("dd 0,", "dd 1,"),
    ],
    ids=["not loaded", "no crash kernel", "it panics too", "makedumpfile fails"],
)
def test_a_crash_without_a_dump_is_none(text, monkeypatch):
    assert measured(text, linux_kdump("l", "dd"), monkeypatch) is None


def test_a_failed_dump_of_the_image_is_none(monkeypatch):
    text = BOOT + PANIC + "pvdump: crash kernel\npvdump: dump failed: no disk\n"
    assert measured(text, OURS, monkeypatch) is None
