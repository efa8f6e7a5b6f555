"""The mode `boot` of the image in an embedded domain: the kernel that a disk says is entered."""

import re

import pytest
from fixtures import testkernel
from fixtures.bootdisks import DEBIAN_13, MIB, ext, gpt
from fixtures.typist import PATIENCE, Typist, image_of

from pvxen.sink import Memory
from tools.image import build
from tools.imageconfig import ROOT
from xenpv import abi

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return image_of(build(tmp_path_factory.mktemp("image"), config=ROOT / "pvboot.yaml"))


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A disk with two BLS entries; both have the test kernel."""
    folder = tmp_path_factory.mktemp("disk")
    files = {"boot/vmlinuz": testkernel.bzimage(folder), "boot/initrd": b"initrd" * 10000}
    for name in ("a1", "a2"):
        files[f"boot/loader/entries/{name}.conf"] = (
            f"title System {name}\nversion {name}\nlinux /boot/vmlinuz\ninitrd /boot/initrd\n"
            f"options root=/dev/xvda1 number={name} console=ttyS0\n"
        ).encode()
    root = ext(folder, files, "-b", "4096", "-O", DEBIAN_13, size=32 * MIB)
    return gpt(folder, [(LINUX, root)])


@pytest.fixture
def boot(image, disk):
    """Boots. Returns the text of the debug console and the shutdown's reason.

    answers: (what the console ends with, what is typed then). stored: what the toolstack has in
    xenstore.
    """

    def of(line="", answers=(), data=None, stored=(), run="pvdump.run=boot "):
        typist = Typist(image, (), cmdline=(run + line).encode())
        for key, value in dict(stored).items():
            typist.guest.store.write(f"/local/domain/1/vm-data/pvboot/{key}", value)
        typist.guest.disk("xvda", Memory(disk if data is None else data))
        left, waited = list(answers), 0

        def type_on(ns):
            nonlocal waited
            waited += ns
            assert waited < PATIENCE, f"not what is to be answered:\n{image.console}"
            if left and image.console.endswith(left[0][0]):
                image.type(left.pop(0)[1])
            elif not left:
                typist.type_on(ns)

        typist.guest.machine.on_idle = type_on
        reason = image.run(typist.guest)
        assert not left, image.console
        return image.text, reason

    return of


def test_the_newest_entry_is_booted_without_a_word(boot):
    text, reason = boot()
    assert "kernel: done" in text, text
    assert "kernel: line root=/dev/xvda1 number=a2 console=ttyS0 console=hvc0\n" in text
    assert f"kernel: size {60000:016x}" in text
    assert re.search(
        r"^pvdump: System a2: kernel \d+ KiB, initrd 58 KiB, read in \d+ ms$", text, re.M
    )
    assert reason == abi.SHUTDOWN_poweroff


def test_an_entry_can_be_named(boot):
    assert "number=a1 " in boot("pvdump.entry=2")[0]
    assert "number=a1 " in boot("pvdump.entry=a1")[0]


SHOWS = "shows the menu\r\n"


def test_a_key_shows_the_menu_where_a_command_line_can_be_edited(boot):
    answers = [
        (SHOWS, b"x"),
        ("boot: ", b"e2\r"),
        ("options: root=/dev/xvda1 number=a1 console=ttyS0", b"\x01quiet \x05 last\r"),
    ]
    text, _ = boot("pvdump.timeout=5", answers)
    edited = "quiet root=/dev/xvda1 number=a1 console=ttyS0 last console=hvc0"
    assert f"kernel: line {edited}\n" in text


@pytest.mark.parametrize("keys", [b"\x01", b"\x03", b"\x04", b"e1\r\x03"], ids=repr)
def test_a_control_key_boots_nothing(boot, keys):
    text, _ = boot("pvdump.timeout=5", [(SHOWS, b"x"), ("boot: ", keys), ("boot: ", b"2\r")])
    assert "number=a1 " in text


def test_what_nobody_can_type_is_not_edited(boot, disk):
    odd = disk.replace(b"number=a2 console=ttyS0", b"number=a2 console\xe9ttyS0")
    answers = [(SHOWS, b"x"), ("boot: ", b"e1\r"), ("nobody can type\r\nboot: ", b"1\r")]
    text, _ = boot("pvdump.timeout=5", answers, odd)
    assert "number=a2 console" in text


def test_a_disk_that_says_nothing_leads_to_the_prompt(boot):
    text, reason = boot(data=bytes(4 * MIB))
    assert "pvdump: no disk says what is to be booted" in text
    assert ">>> " in text
    assert reason == abi.SHUTDOWN_poweroff


def test_xenstore_says_what_the_command_line_does_not(boot):
    assert "number=a1 " in boot(stored={"entry": "a1"})[0]
    assert "number=a1 " in boot(stored={"entry": " 2\n"})[0]
    assert "pvdump: System a2 boots in 2 s" in boot(stored={"timeout": "2"})[0]
    text, _ = boot(stored={"run": "shell"}, run="")
    assert ">>> " in text
    assert "kernel: done" not in text


@pytest.mark.parametrize("line", ["pvdump.entry=a2", "pvdump.entry=", "pvdump.entry=none"])
def test_the_command_line_counts_before_xenstore(boot, line):
    stored = {"run": "shell", "timeout": "60", "entry": "a1"}
    text, _ = boot(f"pvdump.timeout=0 {line}", stored=stored)
    assert "number=a2 " in text
    assert " boots in " not in text


def test_an_option_that_cannot_be_used_is_not_replaced_by_xenstore(boot):
    text, _ = boot(run="pvdump.run=bot", stored={"run": "shell"})
    assert "pvdump: pvdump.run=bot: boot, script, shell expected" in text
    assert "number=a2 " in text


def test_what_xenstore_says_wrongly_is_told_and_passed_over(boot):
    text, _ = boot(stored={"timeout": "soon", "run": "no\x1b[2J", "then": "halt"}, run="")
    assert "pvdump: vm-data/pvboot/timeout=soon: 0 to 3600 expected\n" in text
    assert "pvdump: vm-data/pvboot/run=no?[2J: boot, script, shell expected\n" in text
    assert "pvdump: vm-data/pvboot/then is no setting of pvboot\n" in text
    assert "number=a2 " in text


def test_a_node_that_the_guest_may_not_read_is_told(image, disk):
    typist = Typist(image, [], cmdline=b"")
    typist.guest.store.write("/local/domain/1/vm-data/pvboot/run", "shell", "n0")
    typist.guest.store.write("/local/domain/1/vm-data/pvboot", "", "n0")
    typist.guest.disk("xvda", Memory(disk))
    image.run(typist.guest)
    assert "pvdump: vm-data/pvboot: xenstore directory vm-data/pvboot: EACCES" in image.text
    assert "number=a2 " in image.text
