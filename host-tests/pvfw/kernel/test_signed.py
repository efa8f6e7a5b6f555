"""The mode `boot` with pvdump.verify=, the image in an embedded domain: only what is signed is entered."""

import re
import tempfile
from pathlib import Path

import pytest
from fixtures import testkernel
from fixtures.bootdisks import MIB, ext, fat, gpt
from fixtures.bootfiles import grubenv, uki
from fixtures.minisigning import Minisign
from fixtures.typist import image_of

from pvfw.boot.volumes import ESP
from pvxen.control import ask
from pvxen.guest import EmbeddedGuest
from pvxen.sink import Memory
from tools.image import build
from tools.imageconfig import ROOT
from xenpv import abi

INITRD = bytes(range(256)) * 300 + b"end"
CONF = b"title System\nversion 1\nlinux /boot/vmlinuz\ninitrd /boot/initrd\noptions root=/dev/xvda\n"
ENTRY, KERNEL, RAMDISK = "boot/loader/entries/a.conf", "boot/vmlinuz", "boot/initrd"
WAITS = re.compile(r"(a key shows the menu|boot: |options: [^\n]*|>>> )\s*$")
PATIENCE = 120 * 10**9  # ns of the domain's own time


class Person:
    """Somebody at the console, who answers each question with the next line, then shuts it down.

    Args:
        lines: what to type; a return is typed behind each.
    """

    def __init__(self, image, guest, lines):
        self._image, self._guest = image, guest
        self._lines = list(lines)
        self._seen, self._waited = "", 0

    def __call__(self, ns):
        text = self._image.console
        if text == self._seen or not WAITS.search(text):
            self._waited += ns
            assert self._waited < PATIENCE, f"nothing goes on:\n{text}"
            return
        self._seen, self._waited = text, 0
        if self._lines:
            self._image.type(self._lines.pop(0).encode() + b"\r")
        else:
            ask(self._guest, "poweroff")


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return image_of(build(tmp_path_factory.mktemp("image"), config=ROOT / "pvboot.yaml"))


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    return Minisign(tmp_path_factory.mktemp("minisign"))


@pytest.fixture(scope="module")
def other(tmp_path_factory):
    return Minisign(tmp_path_factory.mktemp("other"))


@pytest.fixture(scope="module")
def kernel(tmp_path_factory):
    return testkernel.bzimage(tmp_path_factory.mktemp("kernel"))


@pytest.fixture(scope="module")
def files(kernel):
    return {ENTRY: CONF, KERNEL: kernel, RAMDISK: INITRD}


@pytest.fixture(scope="module")
def signed(signer, files):
    return {**files, **signer.signed(files)}


@pytest.fixture
def boot(image, signer, tmp_path):
    """Boots a disk with these files. Returns the text of the debug console and the reason."""

    def of(files, line="", key=None, lines=(), data=None):
        if data is None:
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            data = ext(folder, files, "-t", "ext4", "-b", "4096", size=32 * MIB)
        cmdline = f"pvdump.verify={signer.public if key is None else key} {line}"
        options = {"size": 64 << 20, "door": "pvh", "cmdline": cmdline.encode()}
        guest = EmbeddedGuest(ram=image.ram, **options)
        guest.disk("xvda", Memory(data))
        guest.machine.on_idle = Person(image, guest, lines)
        reason = image.run(guest)
        return image.text, reason

    return of


def summed(content):
    total = 0
    for byte in content:
        total = (total * 31 + byte) % (1 << 64)
    return f"kernel: sum {total:016x}"


def test_a_signed_kernel_is_entered_with_its_initrd(boot, signed):
    text, reason = boot(signed)
    assert "kernel: done" in text, text
    assert "kernel: line root=/dev/xvda console=hvc0\n" in text
    assert summed(INITRD) in text
    assert ", of which the check of what was signed " in text
    assert reason == abi.SHUTDOWN_poweroff


def test_a_second_key_counts_too(boot, signed, other, signer):
    text, _ = boot(signed, key=other.public, line=f"pvdump.verify={signer.public}")
    assert "kernel: done" in text, text


def _flipped(content, at):
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


# What is put into the signed disk's place, by path (None: no such file), and what is said.
FAULTS = {
    "another kernel": (lambda s, d: {KERNEL: _flipped(d[KERNEL], -3)}, "vmlinuz: the content is"),
    "another header": (lambda s, d: {KERNEL: _flipped(d[KERNEL], 0x1F1)}, "vmlinuz: the content is"),
    "a longer kernel": (lambda s, d: {KERNEL: d[KERNEL] + b"x"}, "vmlinuz: the content is not"),
    "a shorter initrd": (lambda s, d: {RAMDISK: d[RAMDISK][:-1]}, "initrd: the content is not what"),
    "a longer initrd": (lambda s, d: {RAMDISK: d[RAMDISK] + b"x"}, "initrd: the content is not what"),
    "another initrd": (lambda s, d: {RAMDISK: _flipped(d[RAMDISK], 9)}, "initrd: the content is not"),
    "another entry": (lambda s, d: {ENTRY: CONF + b"options x\n"}, "a.conf: the content is not what"),
    "no signature of the kernel": (
        lambda s, d: {f"{KERNEL}.minisig": None},
        "vmlinuz: there is no signature vmlinuz.minisig",
    ),
    "no signature of the initrd": (
        lambda s, d: {f"{RAMDISK}.minisig": None},
        "initrd: there is no signature initrd.minisig",
    ),
    "no signature of the entry": (
        lambda s, d: {f"{ENTRY}.minisig": None},
        "a.conf: there is no signature a.conf.minisig",
    ),
    "no initrd": (lambda s, d: {RAMDISK: None}, "xvda: no file /boot/initrd"),
    "swapped signatures": (
        lambda s, d: {
            f"{KERNEL}.minisig": d[f"{RAMDISK}.minisig"],
            f"{RAMDISK}.minisig": d[f"{KERNEL}.minisig"],
        },
        "vmlinuz: it is the signature of initrd",
    ),
    "a signed file in another's place": (
        lambda s, d: {
            RAMDISK: d[KERNEL],
            f"{RAMDISK}.minisig": d[f"{KERNEL}.minisig"],
        },
        "initrd: it is the signature of vmlinuz",
    ),
    "a signature that is cut off": (
        lambda s, d: {f"{KERNEL}.minisig": d[f"{KERNEL}.minisig"][:-20]},
        "vmlinuz: the signature is damaged",
    ),
    "the legacy format": (
        lambda s, d: {f"{KERNEL}.minisig": s.sign(KERNEL, d[KERNEL], "-l")},
        "vmlinuz: a signature of the file itself: sign it by minisign -S -H",
    ),
    "another trusted comment": (
        lambda s, d: {f"{KERNEL}.minisig": d[f"{KERNEL}.minisig"].replace(b"hashed", b"dashed")},
        "vmlinuz: the trusted comment is not what was signed",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_entered_but_what_was_signed(name, boot, signed, signer):
    change, why = FAULTS[name]
    changed = {**signed, **change(signer, signed)}
    assert changed != signed
    there = {path: content for path, content in changed.items() if content is not None}
    text, reason = boot(there)
    assert why in text, text
    assert "kernel: " not in text
    assert ">>> " not in text
    assert reason == abi.SHUTDOWN_poweroff
