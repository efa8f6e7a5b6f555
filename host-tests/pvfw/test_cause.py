"""Why a kernel died, by the log it left."""

import random

import pytest
from fixtures.kernellog import Ring
from fixtures.logcases import SECOND, opened

from pvfw import cause
from pvfw.cause import LINE_MAX, TEXT_MAX, Cause

TASK = b"CPU: 1 PID: 97 Comm: sh Not tainted 6.1.0-56-cloud-amd64 #1  Debian 6.1.176-1"
SYSRQ = [
    b"sysrq: Trigger a crash",
    b"Kernel panic - not syncing: sysrq triggered crash",
    TASK,
    b"Hardware name: Xen HVM domU, BIOS 4.17.5 10/08/2024",
    b"Call Trace:",
    b"RIP: 0033:0x7f1b2c4f1ab0",
]
NULL = [
    b"BUG: kernel NULL pointer dereference, address: 0000000000000000",
    b"#PF: supervisor write access in kernel mode",
    b"PGD 0 P4D 0 ",
    b"Oops: 0002 [#1] PREEMPT SMP PTI",
    b"CPU: 0 PID: 412 Comm: insmod Tainted: G           OE      6.1.0-56-amd64 #1",
    b"RIP: 0010:boom_init+0x5/0x1000 [boom]",
    b"Code: Unable to access opcode bytes at 0xffffffffc0a8dfdb.",
    b"RIP: 0033:0x7f1b2c4f1ab0",
    b"---[ end trace 0000000000000000 ]---",
]
NULL_LINES = [
    "BUG: kernel NULL pointer dereference, address: 0000000000000000",
    "Oops: 0002 [#1] PREEMPT SMP PTI",
    "RIP: 0010:boom_init+0x5/0x1000 [boom]",
    "CPU: 0 PID: 412 Comm: insmod",
]
WARNING = [
    b"------------[ cut here ]------------",
    b"WARNING: CPU: 0 PID: 7 at net/core/dev.c:3 f+0x1/0x2",
    b"CPU: 0 PID: 7 Comm: kworker/0:1 Not tainted 6.1.0",
    b"RIP: 0010:f+0x1/0x2",
]
FATAL = [b"Kernel panic - not syncing: Fatal exception in interrupt", b"Kernel Offset: 0x1a000000"]
HUNG = [
    b"INFO: task jbd2:99 blocked for more than 120 seconds.",
    b"Kernel panic - not syncing: hung_task: blocked tasks",
    b"CPU: 1 UID: 0 PID: 33 Comm: khungtaskd Not tainted 6.12.118 #1",
]
GPF = [
    b"Oops: general protection fault, probably for non-canonical address 0xdead0: 0000 [#1] SMP",
    b"CPU: 3 UID: 0 PID: 5 Comm: kworker/3:0 Tainted: G    B   6.12.118 #1",
    b"RIP: 0010:kfree+0x5/0x100",
]


def found(*parts):
    """The Cause by records: lists of texts, and between them how many seconds passed."""
    log = Ring(count_bits=7, size_bits=13)
    time = 100 * SECOND
    for part in parts:
        if isinstance(part, int):
            time += part * SECOND
            continue
        for text in part:
            time += 1000
            log.add(text, time)
    return Cause(opened(log))


def texts(raw):
    return [text.decode() for text in raw]


@pytest.mark.parametrize(
    ("parts", "lines"),
    [
        ([SYSRQ], [*texts(SYSRQ[:2]), "CPU: 1 PID: 97 Comm: sh"]),
        ([NULL], NULL_LINES),
        ([NULL, FATAL], [*NULL_LINES[:2], FATAL[0].decode(), *NULL_LINES[2:]]),
        ([HUNG], [*texts(HUNG[:2]), "CPU: 1 UID: 0 PID: 33 Comm: khungtaskd"]),
        ([GPF], [GPF[0].decode(), GPF[2].decode(), "CPU: 3 UID: 0 PID: 5 Comm: kworker/3:0"]),
        ([FATAL], [FATAL[0].decode()]),
    ],
    ids=["sysrq", "oops", "oops and panic", "hung task", "gpf", "panic alone"],
)
def test_the_lines_are_those_that_say_why(parts, lines):
    assert found([b"Linux version 6.1", b"eth0: link up"], *parts).lines == lines


def test_what_went_wrong_before_is_not_why():
    assert found(WARNING, NULL, 3600, SYSRQ).lines == found(SYSRQ).lines
    assert found(NULL, 3600, HUNG[1:]).lines == found(HUNG[1:]).lines
    assert found(WARNING, NULL).lines == NULL_LINES


def test_what_comes_behind_the_panic_is_not_why():
    assert found(SYSRQ, WARNING).lines == found(SYSRQ).lines


def test_trouble_that_the_kernel_outlived_is_not_why():
    assert found(NULL, 3600, [b"all is well"]).lines == []


def test_without_trouble_the_last_line_is_known():
    quiet = found([b"one", b"two\nthree"])
    assert (quiet.lines, quiet.text, quiet.last) == ([], "", "three")
    assert found().last == ""


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ([SYSRQ], "sysrq: Trigger a crash; CPU: 1 PID: 97 Comm: sh"),
        ([NULL], "; ".join([NULL_LINES[0], NULL_LINES[2]])),
        ([FATAL], FATAL[0].decode()),
    ],
)
def test_the_text_says_the_fault_the_place_and_the_task_as_far_as_they_fit(parts, text):
    assert found(*parts).text == text


def test_lines_and_text_are_bounded_and_printable():
    told = found([b"BUG: \x1b[2J" + b"\xff" * 900, b"CPU: 1 PID: 1 Comm: \x07"])
    assert told.lines[0].startswith("BUG: \\x1b[2J\\xff")
    assert all(len(line) <= LINE_MAX and line.isprintable() for line in told.lines)
    assert len(told.text) <= TEXT_MAX


def test_only_the_newest_records_are_read(monkeypatch):
    monkeypatch.setattr(cause, "RECORDS", len(SYSRQ))
    assert found(NULL[:1] * 50, SYSRQ).lines == found(SYSRQ).lines
    monkeypatch.setattr(cause, "RECORDS", 1)
    assert found(SYSRQ).lines == []


@pytest.mark.parametrize("seed", range(100))
def test_whatever_the_log_holds_it_is_bounded(seed):
    draw = random.Random(seed)
    marks = [mark.encode() for mark in (*cause.FAULTS, cause.PANIC, cause.RIP, cause.CPU)]
    marks += [b" [#", b" Comm: ", b"\n", b"x" * 200, b" Tainted: "]
    parts = []
    for _ in range(draw.randrange(30)):
        parts.append([b"".join(draw.choices(marks, k=draw.randrange(5)))])
        parts.append(draw.choice([0, 0, 11]))
    told = found(*parts)
    assert len(told.lines) <= cause.FAULTS_MAX + 3
    assert bool(told.lines) == bool(told.text)
    assert len(told.text) <= TEXT_MAX
    assert "\n" not in told.text
