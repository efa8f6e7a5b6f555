"""The prompt of pvboot, the image itself in an embedded domain: typed at as a person would."""

import re

import pytest
from fixtures.typist import Typist, image_of

from pvxen.sink import Memory
from tools.image import build
from tools.imageconfig import ROOT
from xenpv import abi


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return image_of(build(tmp_path_factory.mktemp("image"), config=ROOT / "pvboot.yaml"))


@pytest.fixture
def ask(image):
    """Types lines. Returns what was answered to each."""

    def of(*lines, disk=None):
        typist = Typist(image, lines)
        typist.guest.disk("xvda", disk or Memory(1 << 20))
        typist.run()
        assert typist.reason == abi.SHUTDOWN_poweroff, typist.said
        return typist.answers

    return of


def test_an_expression_is_answered(ask):
    assert ask("1+1", "x = 20", "x + 1", "'a' * 3") == ["2", "", "21", "'aaa'"]


def test_an_exception_ends_the_statement_alone(ask):
    answers = ask("1 // 0", "nobody", "1 +", "2")
    assert answers[0].endswith("ZeroDivisionError: divide by zero")
    assert "NameError" in answers[1]
    assert "SyntaxError" in answers[2]
    assert answers[3] == "2"


def test_what_is_awaited_is_answered(ask):
    disk = Memory(bytes(range(256)) * 4096)
    lines = (
        'store.read("name")',
        "await disk.read(4094, 4)",
        "x = await store.directory('device')",
        "x",
    )
    assert ask(*lines, disk=disk) == ["b'guest'", r"b'\xfe\xff\x00\x01'", "", "['vbd']"]


def test_a_written_disk_has_it_and_what_stood_beside_it(ask):
    disk = Memory(b"a" * (1 << 20))
    answers = ask("await disk.write(70000, b'xyz' * 30000)", "disk.size()", disk=disk)
    assert answers == ["", "1048576"]
    assert bytes(disk.data) == b"a" * 70000 + b"xyz" * 30000 + b"a" * ((1 << 20) - 160000)


def test_a_function_runs_a_coroutine(ask):
    lines = ("def name():", "return run(store.read('name'))", "", "[name(), name()]")
    assert ask(*lines)[-1] == "[b'guest', b'guest']"


def test_other_tasks_go_on_while_the_prompt_waits(ask):
    lines = (
        *("async def count():", "global n", "while True:", "n += 1", "await loop.sleep(10**8)", ""),
        *("n = 0", "task = loop.spawn(count())", "a = n, loop.now()", "await loop.sleep(10**9)"),
        "abs((n - a[0]) * 10**8 - (loop.now() - a[1])) <= 10**8, n > 9",
    )
    assert ask(*lines)[-1] == "(True, True)"


def test_a_task_that_fails_is_told_and_the_prompt_goes_on(image):
    lines = (
        "async def fail():",
        "await loop.sleep(10**8)",
        "nothing",
        "",
        "t = loop.spawn(fail())",
    )
    done = Typist(image, [*lines, "await loop.sleep(10**9)", "3"]).run()
    assert "a task has failed:" in done.said
    assert "NameError: name 'nothing' isn't defined" in done.said
    assert done.answers[-1] == "3"


def test_ctrl_c_ends_what_computes(ask):
    answers = ask(b"while True: pass\r\r\x03", "4")
    assert answers[0].endswith("KeyboardInterrupt: ")
    assert answers[1] == "4"


def test_ctrl_c_ends_what_waits_and_lets_it_clean_up(ask):
    lines = ("async def wait():", "try:", "await loop.sleep(10**15)", "finally:")
    # The body of `finally` is indented as that of `try`.
    typed = (*lines[:3], b"\x7ffinally:\r", "print('cleaned')", "")
    answers = ask(*typed, b"await wait()\r\x03", "5")
    assert "cleaned\n" in answers[-2]
    assert answers[-2].endswith("KeyboardInterrupt: ")
    assert answers[-1] == "5"


def test_ctrl_c_gives_a_line_up(ask):
    assert ask(b"not python at all\x03", "6") == ["", "6"]


def test_an_earlier_line_comes_back_and_can_be_changed(ask):
    assert ask("7 * 100", b"\x1b[A1\r", b"\x1b[A\x1b[D0\r") == ["700", "7007", "70007"]


def test_tab_completes_a_name(ask):
    assert ask("something_long = 8", b"someth\t + 1\r")[1] == "9"


def test_a_paste_is_run_as_it_is(ask):
    paste = b"def f(x):\r    y = x\r\r    return y\r\rprint(f(9))\r\x04"
    assert ask(b"\x05", paste)[1].endswith("9")


def test_help_and_the_modules(ask):
    names = (
        "argparse, cmd, contextlib, functools, itertools, json, logging, os.path, time, unittest"
    )
    answers = ask("help()", f"import {names}", "os.path.join('a', 'b')", "json.loads('[1]')")
    assert "store.read" in answers[0]
    assert answers[1:] == ["", "'a/b'", "[1]"]


def test_the_time_of_day_is_read(ask):
    answers = ask("import time", "t = time.time()", "time.mktime(time.gmtime(t)) == t")
    assert answers[-1] == "True"


def script_guest(image, script, line=b"pvdump.run=script", at=0x1000000):
    typist = Typist(image, [], cmdline=line, modules=((at, len(script)),))
    typist.guest.machine.ram[at : at + len(script)] = script
    return typist.run()


def test_a_script_is_run_and_the_guest_powers_off(image):
    script = b"#!pvboot\nprint('name', await store.read('name'))\n"
    done = script_guest(image, script)
    assert "name b'guest'\n" in done.said
    assert ">>>" not in done.said
    assert done.reason == abi.SHUTDOWN_poweroff


def test_a_script_that_fails_crashes_the_domain(image):
    done = script_guest(image, b"#!pvboot\n\nnothing\n")
    assert 'File "module0.py", line 3' in done.said
    assert done.reason == abi.SHUTDOWN_crash


def test_a_script_that_exits_ends_as_it_says(image):
    assert script_guest(image, b"#!pvboot\nreboot()\n").reason == abi.SHUTDOWN_reboot


def test_a_script_can_follow_the_options(image):
    script = b"#pvdump\npvdump.run=script\n#!pvboot\nprint('here')\n"
    done = script_guest(image, script, line=b"")
    assert "here\n" in done.said
    assert done.reason == abi.SHUTDOWN_poweroff


def test_the_toolstack_is_heard_at_the_prompt(image):
    typist = Typist(image, [])
    machine = typist.guest.machine

    def ask(ns):
        if ">>> " in image.console:
            typist.guest.store.write("/local/domain/1/control/shutdown", "reboot")
            machine.on_idle = None

    machine.on_idle = ask
    assert image.run(typist.guest) == abi.SHUTDOWN_reboot
    assert "the toolstack asks for reboot: rebooting" in image.console


TICK = b"""#!pvboot
async def tick():
    await loop.sleep(3 * 10**9)
    print("tick", "tock", end=END)
loop.spawn(tick())
"""


def screen(text):
    """Return the rows of a terminal that has shown a text, the cursor's place as (row, column)."""
    rows, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[\d*[A-Z]|.", text, re.DOTALL):
        if part == "\r":
            column = 0
        elif part == "\n":
            row += 1
            rows += [""] * (row + 1 - len(rows))
        elif part == "\b":
            column -= 1
        elif part == "\x1b[K":
            rows[row] = rows[row][:column]
        elif part[0] == "\x1b":
            assert part[-1] == "D", part
            column -= int(part[2:-1])
        else:
            rows[row] = rows[row].ljust(column)[:column] + part + rows[row][column + 1 :]
            column += 1
    return rows, (row, column)


class Interrupted:
    """A person who types a part of a line, sees another task print, and types the rest.

    Attributes: before, after: the screen() when the part was typed, and when the task had printed.
    """

    def __init__(self, image, end, *parts):
        script = TICK.replace(b"END", repr(end).encode())
        line = b"pvdump.run=shell"
        typist = Typist(image, [], cmdline=line, modules=((0x1000000, len(script)),))
        typist.guest.machine.ram[0x1000000 : 0x1000000 + len(script)] = script
        self._image, self._parts = image, list(parts)
        self.before = self.after = None
        typist.guest.machine.on_idle = self._type
        assert image.run(typist.guest) == abi.SHUTDOWN_poweroff
        self.rows = screen(image.console)[0]

    def _type(self, _):
        now = screen(self._image.console)
        if self.before is None and now[0][-1] == ">>> ":
            self.before = ()
            self._image.type(self._parts.pop(0))
        elif self.before == ():
            self.before = now
        elif "tick tock" in now[0] and self.after is None:
            self.after = now
            self._image.type(self._parts.pop(0))
        elif self.after is not None and now[0][-1] == ">>> ":
            self._image.type(b"\x04")


@pytest.mark.parametrize("end", ["\n", ""])
def test_a_line_that_is_being_typed_is_drawn_again_below_what_is_printed(image, end):
    done = Interrupted(image, end, b"40 + 3\x1b[D", b"2\r")
    (rows, place), (later, there) = done.before, done.after
    assert (rows[-1], place[1]) == (">>> 40 + 3", 9)
    assert later == [*rows[:-1], "tick tock", ">>> 40 + 3"]
    assert there == (place[0] + 1, 9)
    assert done.rows[done.rows.index(">>> 40 + 23") + 1] == "63"


def test_the_row_of_a_paste_is_drawn_again(image):
    done = Interrupted(image, "\n", b"\x05a = 1\ra +=", b" 2\rprint(a)\r\x04")
    assert done.before[0][-2:] == ["=== a = 1", "=== a +="]
    assert done.after[0][-3:] == ["=== a = 1", "tick tock", "=== a +="]
    assert "3" in done.rows


def test_the_last_of_several_lines_is_drawn_again(image):
    done = Interrupted(image, "\n", b"if 1:\rprint(7", b")\r\r")
    assert done.after[0][-3:] == [">>> if 1:", "tick tock", "...     print(7"]
    assert "7" in done.rows
