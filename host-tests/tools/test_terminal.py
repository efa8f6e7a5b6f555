"""The menu and the prompt of pvboot as a person sees them, at `./build.py run` in a terminal."""

import re
import sys
import tempfile
from pathlib import Path

import pytest
from fixtures import testkernel
from fixtures.bootdisks import DEBIAN_13, MIB, ext, gpt
from fixtures.pane import Pane

ROOT = Path(__file__).resolve().parents[2]
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
RUN = "{python} build.py run --shell --disk {disk} --cmdline '{line}' 2>{folder}/err"
LINE = "pvdump.run=boot pvdump.timeout=600"
MENU = """\
pvdump: System a2 boots in 600 s; a key shows the menu
*  1  System a2
   2  System a1
Type a number to boot it, e and a number to edit its command line before, \
s for a shell; then return.
boot:"""
SHELL = "MicroPython 1.25.0 in a Xen guest; help() says what there is.\n>>>"
INTERRUPTED = """\
>>> await loop.sleep(3600 * 10**9)
Traceback (most recent call last):
KeyboardInterrupt:
>>>"""
PASTED = """\
>>>
paste mode: Ctrl-D runs it, Ctrl-C gives it up
=== def f():
===     return 7
===
=== print(f() * 6)
===
42
>>>"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory):
    """A disk with two entries; both have the test kernel."""
    folder = tmp_path_factory.mktemp("disk")
    files = {"boot/vmlinuz": testkernel.bzimage(folder)}
    for name in ("a1", "a2"):
        files[f"boot/loader/entries/{name}.conf"] = (
            f"title System {name}\nversion {name}\nlinux /boot/vmlinuz\n"
            f"options root=/dev/xvda1 number={name} console=ttyS0\n"
        ).encode()
    root = ext(folder, files, "-b", "4096", "-O", DEBIAN_13, size=32 * MIB)
    path = folder / "disk.img"
    path.write_bytes(gpt(folder, [(LINUX, root)]))
    return path


@pytest.fixture
def person(disk):
    """Runs pvboot in a terminal, and shows its menu. Returns a Person."""
    with tempfile.TemporaryDirectory() as name:  # a short path, for a socket
        folder = Path(name)

        def start():
            words = {"python": sys.executable, "disk": disk, "line": LINE, "folder": folder}
            run = RUN.format(**words)
            states = [f"stty -a >{folder}/{name}" for name in ("before", "after")]
            lines = [f"cd {ROOT}", states[0], run, states[1], f">{folder}/left", "cat"]
            one = Person(folder, "; ".join(lines))
            people.append(one)
            one.sees(MENU.partition("\n")[0])
            one.types("x")
            one.sees(MENU)
            return one

        people = []
        yield start
        for one in people:
            one.pane.close()


class Person:
    """Types, and looks at what the screen then shows."""

    def __init__(self, folder, shell):
        self.folder = folder
        self.pane = Pane(folder, ["sh", "-c", shell])

    def types(self, *keys):
        self.pane.type(*keys)

    def sees(self, text):
        """Wait until the screen ends with a text, but for the lines that name a place in a file."""
        self.pane.wait(lambda screen: shown(screen).endswith("\n" + text + "\n"))

    def left(self):
        """Wait until the command has ended; the terminal is as it was."""
        self.pane.wait(lambda _: (self.folder / "left").exists())
        before, after = ((self.folder / name).read_text() for name in ("before", "after"))
        assert after == before
        return (self.folder / "err").read_text().splitlines()[-1]


def shown(screen):
    return re.sub(r"^  File .*\n", "", screen, flags=re.MULTILINE)


def test_a_command_line_is_edited_in_the_menu_and_booted(person):
    one = person()
    one.types("e2", "Enter")
    one.sees(f"{MENU} e2\noptions: root=/dev/xvda1 number=a1 console=ttyS0")
    one.types("C-a", "quiet ", "C-e", "BSpace", "BSpace", "BSpace", "BSpace", "BSpace", "tty1")
    options = "quiet root=/dev/xvda1 number=a1 console=tty1"
    one.sees(f"{MENU} e2\noptions: {options}")
    one.types("Enter")
    assert one.left() == "the domain has ended: powered off"
    assert f"\nkernel: line {options} console=hvc0\n" in one.pane.screen()


def test_a_slip_at_the_menu_boots_nothing(person):
    one = person()
    one.types("9", "Enter")
    wrong = f"{MENU} 9\nthere is no entry 9\nboot:"
    one.sees(wrong)
    one.types("C-a", "C-c", "e1", "Enter")
    edited = f"{wrong}\nboot:\nboot: e1\noptions: root=/dev/xvda1 number=a2 console=ttyS0"
    one.sees(edited)
    one.types("C-c")
    one.sees(f"{edited}\nboot:")
    one.types("1", "Enter")
    assert one.left() == "the domain has ended: powered off"
    assert "\nkernel: line root=/dev/xvda1 number=a2 console=ttyS0 console=hvc0\n" in (
        one.pane.screen()
    )


def test_the_prompt_has_history_completion_and_paste_and_ctrl_c_interrupts(person):
    one = person()
    one.types("s", "Enter")
    one.sees(f"{MENU} s\n{SHELL}")
    one.types("1+1", "Enter")
    one.sees(">>> 1+1\n2\n>>>")
    one.types("Up", "BSpace", "41", "Enter")
    one.sees(">>> 1+1\n2\n>>> 1+41\n42\n>>>")
    one.types("for i in range(2):", "Enter", "print(i)", "Enter", "Enter")
    one.sees(">>> for i in range(2):\n...     print(i)\n...\n0\n1\n>>>")
    one.types("sto", "Tab", '.read("na', "Left", "Left", "C-e", 'me")', "Enter")
    one.sees(">>> store.read(\"name\")\nb'guest'\n>>>")
    one.types("await loop.sleep(3600 * 10**9)", "Enter")
    one.sees(INTERRUPTED.partition("\n")[0])
    one.types("C-c")
    one.sees(INTERRUPTED)
    one.types("C-e")
    one.sees("\n".join(PASTED.splitlines()[:2]) + "\n===")
    one.types(
        "def f():", "Enter", "    return 7", "Enter", "Enter", "print(f() * 6)", "Enter", "C-d"
    )
    one.sees(PASTED)
    one.types("C-]")
    assert one.left() == "the domain was left"
