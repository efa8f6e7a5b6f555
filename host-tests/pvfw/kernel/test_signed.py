"""The mode `boot` with pvdump.verify=, in an embedded domain: only what is signed is entered."""

import random
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

INITRD = random.Random(7).randbytes(76_803)
CONF = (
    b"title System\nversion 1\nlinux /boot/vmlinuz\ninitrd /boot/initrd\noptions root=/dev/xvda\n"
)
ENTRY, KERNEL, RAMDISK = "boot/loader/entries/a.conf", "boot/vmlinuz", "boot/initrd"
WAITS = re.compile(r"(a key shows the menu|boot: |options: [^\n]*|>>> )\s*$")
MODULE = 0x800000
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
    """A kernel with something behind its end, as a signature for Secure Boot is."""
    found = testkernel.bzimage(tmp_path_factory.mktemp("kernel"))
    return found + random.Random(5).randbytes(70_000)


@pytest.fixture(scope="module")
def files(kernel):
    return {ENTRY: CONF, KERNEL: kernel, RAMDISK: INITRD}


@pytest.fixture(scope="module")
def signed(signer, files):
    return {**files, **signer.signed(files)}


@pytest.fixture
def boot(image, signer, tmp_path):
    """Boots a disk with these files. Returns the text of the debug console and the reason."""

    def of(files, line="", key=None, lines=(), data=None, sink=None, module=None, run=None):
        if data is None and sink is None:
            folder = Path(tempfile.mkdtemp(dir=tmp_path))
            data = ext(folder, files, "-t", "ext4", "-b", "4096", size=32 * MIB)
        cmdline = f"pvdump.verify={signer.public if key is None else key} {line}"
        options = {"size": 64 << 20, "door": "pvh", "cmdline": cmdline.encode()}
        if module is not None:
            options |= {"cmdline": b"", "modules": ((MODULE, len(module)),)}
        guest = EmbeddedGuest(ram=image.ram, **options)
        if module is not None:
            guest.machine.ram[MODULE : MODULE + len(module)] = module
        sink = sink or Memory(data)
        sink.machine = guest.machine
        guest.disk("xvda", sink)
        if run is not None:
            guest.store.write("/local/domain/1/vm-data/pvboot/run", run)
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
    "another header": (
        lambda s, d: {KERNEL: _flipped(d[KERNEL], 0x1F1)},
        "vmlinuz: the content is",
    ),
    "a longer kernel": (lambda s, d: {KERNEL: d[KERNEL] + b"x"}, "vmlinuz: the content is not"),
    "a shorter initrd": (
        lambda s, d: {RAMDISK: d[RAMDISK][:-1]},
        "initrd: the content is not what",
    ),
    "a longer initrd": (
        lambda s, d: {RAMDISK: d[RAMDISK] + b"x"},
        "initrd: the content is not what",
    ),
    "another initrd": (
        lambda s, d: {RAMDISK: _flipped(d[RAMDISK], 9)},
        "initrd: the content is not",
    ),
    "another entry": (
        lambda s, d: {ENTRY: CONF + b"options x\n"},
        "a.conf: the content is not what",
    ),
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


# The disk and its backend are somebody else's.


class Turning(Memory):
    """A disk that says something else of a file once it has said all of it.

    Args:
        data: the disk's content.
        content: the file's; blocks of zeros are not on the disk.
    """

    def __init__(self, data, content):
        super().__init__(data)
        blocks = [content[at : at + 4096] for at in range(0, len(content) - 4095, 4096)]
        self._places = {data.find(block) for block in blocks if any(block)}
        assert min(self._places) > 0
        self._left = set(self._places)

    def read(self, offset, buffers):
        turns = not self._left
        for buffer in buffers:
            super().read(offset, [buffer])
            for at in self._places:
                if offset <= at < offset + len(buffer):
                    self._left.discard(at)
                    if turns:
                        buffer[at - offset : at - offset + 4096] = b"\xcc" * 4096
            offset += len(buffer)

    def has_said_all(self):
        return not self._left


@pytest.mark.parametrize("path", [KERNEL, RAMDISK])
def test_what_is_entered_was_read_once(path, boot, signed, tmp_path):
    data = ext(tmp_path, signed, "-t", "ext4", "-b", "4096", size=32 * MIB)
    disk = Turning(data, signed[path])
    text, _ = boot(signed, sink=disk)
    assert disk.has_said_all()
    assert "kernel: done" in text, text
    assert summed(INITRD) in text


class Keeping(Memory):
    """A disk whose backend keeps a page mapped that it has read into. machine: the guest's."""

    machine = mapping = None

    def read(self, offset, buffers):
        super().read(offset, buffers)
        table = self.machine.gnttab
        for ref in range(abi.GNTTAB_NR_RESERVED_ENTRIES, table.entries()):
            flags, _, frame = table.entry(ref)
            # Kernels are read to the end of the memory first.
            if flags & abi.GTF_permit_access and frame >= 0x3000 and self.mapping is None:
                self.mapping = table.map(ref, 0, False)


def test_nothing_is_entered_while_a_backend_can_still_write_to_it(boot, signed, tmp_path):
    data = ext(tmp_path, signed, "-t", "ext4", "-b", "4096", size=32 * MIB)
    text, _ = boot(signed, sink=Keeping(data))
    assert "xvda:/boot/vmlinuz: a backend still has access to memory of this guest" in text, text
    assert "kernel: " not in text


def test_a_grub_environment_block_gives_no_command_line(boot, signer, signed):
    config = {
        "boot/grub/grub.cfg": b"load_env\nset default=$saved_entry\n"
        b"menuentry a { linux /boot/vmlinuz root=/dev/xvda $more; initrd /boot/initrd; }\n"
        b"menuentry b { linux /boot/vmlinuz root=/dev/xvdb $more; initrd /boot/initrd; }\n"
    }
    env = {"boot/grub/grubenv": grubenv(saved_entry="b", more="init=/bin/sh")}
    files = {path: raw for path, raw in signed.items() if not path.startswith(ENTRY)}
    text, _ = boot({**files, **config, **signer.signed(config), **env})
    assert "kernel: line root=/dev/xvdb console=hvc0\n" in text, text


# Unified images.


@pytest.fixture(scope="module")
def unified(tmp_path_factory, kernel):
    folder = tmp_path_factory.mktemp("uki")
    (folder / "kernel").write_bytes(kernel)
    (folder / "initrd").write_bytes(INITRD)
    words = (f"--initrd={folder / 'initrd'}", "--cmdline=root=/dev/xvdz", "--uname=1")
    return {"EFI/Linux/one.efi": uki(folder, folder / "kernel", *words)}


def esp(folder, files):
    return gpt(folder, [(ESP[0], fat(folder, files, "-F", "32", size=40 * MIB))])


def test_a_signed_unified_image_is_entered(boot, signer, unified, tmp_path):
    text, _ = boot({}, data=esp(tmp_path, {**unified, **signer.signed(unified)}))
    assert "kernel: done" in text, text
    assert "kernel: line root=/dev/xvdz console=hvc0\n" in text
    assert summed(INITRD) in text


def test_a_unified_image_of_another_command_line_is_not_entered(boot, signer, unified, tmp_path):
    ((path, raw),) = unified.items()
    changed = raw.replace(b"root=/dev/xvdz", b"root=/dev/xvdy")
    assert changed != raw
    text, _ = boot({}, data=esp(tmp_path, {path: changed, **signer.signed(unified)}))
    assert "one.efi: the content is not what was signed" in text, text
    assert "kernel: " not in text


def test_what_a_unified_image_says_is_read_of_the_checked_memory(boot, signer, unified, tmp_path):
    """The disk says one command line while the menu is made, and another one afterwards."""
    ((path, raw),) = unified.items()
    lie = raw.replace(b"root=/dev/xvdz", b"root=/dev/xvdy")
    data = esp(tmp_path, {path: raw, **signer.signed(unified)})
    at = data.find(b"root=/dev/xvdz")

    class Lying(Memory):
        first = True

        def read(self, offset, buffers):
            begin = offset
            super().read(offset, buffers)
            for buffer in buffers:
                if begin <= at < begin + len(buffer) and self.first:
                    buffer[at - begin + 13] = ord("y")
                    self.first = False
                begin += len(buffer)

    assert b"root=/dev/xvdy" in lie
    disk = Lying(data)
    text, _ = boot({}, sink=disk)
    assert not disk.first
    assert "kernel: line root=/dev/xvdz console=hvc0\n" in text, text


def test_an_unsigned_unified_image_is_passed_over(boot, signer, unified, tmp_path):
    newer = {"EFI/Linux/two.efi": next(iter(unified.values()))}
    text, _ = boot({}, data=esp(tmp_path, {**unified, **newer, **signer.signed(unified)}))
    assert "two.efi: there is no signature two.efi.minisig" in text
    assert "kernel: done" in text, text


# Whoever is at the console is not the toolstack.


def test_the_menu_edits_no_command_line_and_gives_no_prompt(boot, signed):
    text, _ = boot(signed, "pvdump.timeout=5", lines=["", "e1", "s", "1"])
    assert "Type a number to boot it; then return." in text
    assert "it allows this by pvdump.allow=edit" in text
    assert "it allows this by pvdump.allow=shell" in text
    assert "options: " not in text
    assert ">>> " not in text
    assert "kernel: line root=/dev/xvda console=hvc0\n" in text, text


def test_the_menu_edits_a_command_line_where_the_toolstack_allows_it(boot, signed):
    lines = ["", "s", "e1", " single"]
    text, _ = boot(signed, "pvdump.timeout=5 pvdump.allow=edit", lines=lines)
    assert "it allows this by pvdump.allow=shell" in text
    assert "kernel: line root=/dev/xvda single console=hvc0\n" in text, text


def test_an_edited_command_line_is_before_a_unified_image_s(boot, signer, unified, tmp_path):
    data = esp(tmp_path, {**unified, **signer.signed(unified)})
    options = "pvdump.timeout=5 pvdump.allow=edit,shell"
    text, _ = boot({}, options, lines=["", "e1", " single"], data=data)
    assert "kernel: line root=/dev/xvdz single console=hvc0\n" in text, text


def test_the_menu_gives_a_prompt_where_the_toolstack_allows_it(boot, signed):
    text, _ = boot(signed, "pvdump.timeout=5 pvdump.allow=shell", lines=["", "s", "6*7"])
    assert "\n42\n" in text, text


def test_a_disk_that_says_nothing_leads_to_no_prompt(boot):
    text, reason = boot({}, data=bytes(4 * MIB))
    assert "pvdump: no disk says what is to be booted" in text
    assert "pvdump: no prompt without pvdump.allow=shell" in text
    assert ">>> " not in text
    assert reason == abi.SHUTDOWN_poweroff
    assert ">>> " in boot({}, "pvdump.allow=shell", data=bytes(4 * MIB))[0]


def test_the_toolstack_may_ask_for_a_prompt_itself(boot, signed):
    assert ">>> " in boot(signed, "pvdump.run=shell")[0]


def test_xenstore_asks_for_a_prompt_where_the_command_line_allows_it(boot, signed):
    text, _ = boot(signed, run="shell")
    assert "pvdump: vm-data/pvboot/run needs pvdump.allow=shell\n" in text
    assert "kernel: done" in text, text
    assert ">>> " in boot(signed, "pvdump.allow=shell", run="shell")[0]


@pytest.mark.parametrize(
    ("key", "line", "why"),
    [
        ("", "", "pvdump.verify=: no public key of minisign"),
        ("RWQ", "", "pvdump.verify=RWQ: no public key of minisign"),
    ],
)
def test_options_that_cannot_be_used_let_nothing_be_booted(key, line, why, boot, signed):
    text, _ = boot(signed, line, key=key)
    assert why in text, text
    assert "kernel: " not in text
    assert ">>> " not in text


def test_a_command_line_that_may_be_cut_off_lets_nothing_be_booted(boot, signed, signer):
    line = "pvdump.entry=".ljust(2047 - len(f"pvdump.verify={signer.public} "), "x")
    text, _ = boot(signed, line)
    assert "the options are too long to be read whole" in text, text
    assert "kernel: " not in text
    assert "there is no entry xxx" in boot(signed, line[:-1])[0]


def test_options_that_are_cut_off_before_the_key_let_nothing_be_booted(boot, signed, signer):
    """The text of a firmware guest has 2048 bytes at most."""
    line = "pvdump.entry=" + "x" * 2100 + f" pvdump.verify={signer.public}"
    text, _ = boot(signed, module=f"#pvdump\n{line}\n".encode())
    assert "the options are too long to be read whole" in text, text
    assert "kernel: " not in text


def test_a_text_for_the_firmware_takes_the_key_as_well(boot, files, signed, signer):
    module = f"#pvdump\npvdump.verify={signer.public}\n".encode()
    assert "kernel: done" in boot(signed, module=module)[0]
    text, _ = boot(files, module=module)
    assert "a.conf: there is no signature a.conf.minisig" in text
    assert "kernel: " not in text
