"""The text of a report: what it says, and that it is harmless to a terminal."""

import re

import pytest
from fixtures.reports import HOSTILE, MIB, report

from pvdump.report.text import Text, amount, duration, moment


def text(of: str = "text", coloured: bool = False) -> str:
    return "\n".join(Text(report(of), coloured).lines())


def test_it_says_why_where_and_with_what_stack() -> None:
    said = text()
    for part in (
        "Oops: text",
        "the task that crashed, on CPU 1: text, PID 7",
        "#0  text+0x10/0x20 [text]  text.c:7",
        "#1  0xffffffff81000020",
        "on CPU 0: [text], PID 0",
        "blocked: stuck, PID 8",
        "tainting        text (O)",
        "incomplete: part of the memory is missing",
        "lacks text",
    ):
        assert part in said


def test_memory_is_a_bar_for_each_class() -> None:
    bars = re.findall(r"^  (\S+(?: \S+)*) +(\S+ MiB) +(\S+) (█+)$", text(), re.MULTILINE)
    assert bars == [
        ("free", "60.0 MiB", "60%", "█" * 24),
        ("slab", "30.0 MiB", "30%", "█" * 12),
        ("other kernel", "10.0 MiB", "10%", "█" * 4),
    ]


@pytest.mark.parametrize("coloured", [False, True])
def test_a_terminal_gets_no_control_characters_of_the_guest(coloured: bool) -> None:
    said = text(HOSTILE, coloured)
    if coloured:
        assert "\x1b[" in said
        said = re.sub(r"\x1b\[[0-9;]+m", "", said)
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", said)
    assert r"\x1b]0;title\x07" in said


def test_hostile_text_takes_no_lines_of_its_own() -> None:
    assert text(HOSTILE).count("\n") == text().count("\n")


def test_processes_are_ordered_by_their_memory() -> None:
    named = re.findall(r"^ +(\d+) +\S+ MiB +\S+ MiB  (\S+)$", text(), re.MULTILINE)
    assert named == [("7", "text"), ("8", "stuck"), ("9", "quiet")]


def test_numbers_are_written_for_a_person() -> None:
    assert [amount(size) for size in (0, 512, 1536, 150 * MIB, 1 << 40, 1 << 60)] == [
        "0 B",
        "512 B",
        "1.5 KiB",
        "150 MiB",
        "1.0 TiB",
        "1048576 TiB",
    ]
    assert [duration(seconds) for seconds in (5.04, 65, 7260, 90061)] == [
        "5.0 s",
        "1 min 5.0 s",
        "2 h 1 min",
        "1 d 1 h 1 min",
    ]
    assert moment(1 << 60) == f"{1 << 60} s since 1970"
