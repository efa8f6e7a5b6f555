"""The crashed kernel's log: each record that can be had, once and in order, whatever is damaged."""

import random

import pytest
from fixtures import kernellog
from fixtures.kernellog import BASE, DESCS, LOG_BUF, PRB, RINGS, TEXTS, Buffer, Ring
from fixtures.logcases import CASES, numbered, opened

from pvfw.errors import CoreError


def filled(records=6):
    log = Ring()
    for text in numbered(0, records)[0]:
        log.add(text)
    return log


def line(text):
    return f"[    0.000000] [      T1] {text}"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_case(case):
    log, lines, lost = case()
    found = opened(log)
    assert list(found.lines()) == lines
    assert found.lost == lost


def test_an_empty_log_has_no_lines():
    assert list(opened(Ring()).lines()) == []


def test_a_kernel_that_gives_no_callers_has_lines_without():
    log = Ring()
    log.add(b"text")
    assert list(opened(log, **{"OFFSET(printk_info.caller_id)": ""}).lines()) == [
        "[    0.000000] text"
    ]


def test_records_are_read_one_by_one():
    log = filled()
    lines = opened(log).lines()
    next(lines)
    before = log.memory.reads
    next(lines)
    assert log.memory.reads - before == 3  # descriptor, info, text


def test_missing_memory_costs_the_records_in_it():
    log = filled()
    begin = log.memory.get(log.slot(2)[0] + 8, "<Q") % 512
    log.memory.missing.append((BASE + TEXTS + begin + 8, BASE + TEXTS + begin + 9))
    found = opened(log)
    lines = numbered(0, 6)[1]
    assert list(found.lines()) == lines[:3] + lines[4:]
    assert (found.lost, found.why) == (1, f"0x{BASE + TEXTS + begin + 8:x} is missing")


def test_of_many_lost_records_the_first_is_told():
    log = filled()
    for back in range(4):
        log.memory.put(log.slot(back)[0], "<Q", 0x77)
    found = opened(log)
    assert list(found.lines()) == numbered(0, 2)[1]
    assert found.lost == 4
    oldest = (-8 - 1 + 3) & kernellog.ID_MASK
    assert found.why == f"descriptor {oldest} of the kernel's log is damaged: it has state_var 0x77"


def test_text_beyond_its_block_is_cut():
    log = filled(1)
    log.add(b"next")
    log.memory.put(log.slot(1)[1] + 16, "<H", 60000)
    first, second = opened(log).lines()
    assert first.startswith(line("record 0"))
    assert len(first) == len(line("")) + 8
    assert second == line("next")


@pytest.mark.parametrize("begin", [0x1FC, 2], ids=["no room for the id", "a huge block"])
def test_a_block_that_cannot_be_is_damage(begin):
    log = Ring(size_bits=16)
    log.add(b"lost")
    log.add(b"text")
    desc, info = log.slot(1)
    log.memory.put(desc + 8, "<QQ", begin, 0x1FE if begin > 2 else 0xFFF8)
    log.memory.put(info + 16, "<H", 60000)
    found = opened(log)
    assert list(found.lines()) == [line("text")]
    assert found.lost == 1


# What cannot be read at all.


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("OFFSET(prb_desc.state_var)", ""),
        ("OFFSET(prb_desc.state_var)", "-8"),
        ("SIZE(printk_info)", "5000"),
        ("SIZE(prb_desc)", "0"),
        ("OFFSET(printk_info.caller_id)", "x"),
    ],
)
def test_a_value_that_cannot_be_is_named(key, value):
    with pytest.raises(CoreError) as error:
        opened(filled(), **{key: value})
    assert str(error.value) == f"VMCOREINFO has no usable {key}"


def test_a_field_outside_its_structure_costs_no_more_than_the_log():
    with pytest.raises(CoreError, match="VMCOREINFO is damaged"):
        opened(filled(), **{"OFFSET(prb_desc_ring.tail_id)": "84"})
    found = opened(filled(), **{"OFFSET(printk_info.ts_nsec)": "84"})
    assert list(found.lines()) == []
    assert found.lost == 6


@pytest.mark.parametrize("bits", [0, 22, 32, 0xFFFFFFFF])
def test_a_ring_that_is_too_large_is_refused(bits):
    log = filled()
    log.memory.put(RINGS, "<I", bits)
    with pytest.raises(CoreError, match=f"count_bits {bits}"):
        opened(log)


def test_a_text_ring_that_is_too_large_is_refused():
    log = filled()
    log.memory.put(RINGS + 48, "<I", 27)
    with pytest.raises(CoreError, match="size_bits 27"):
        opened(log)


def test_an_unknown_format_is_said():
    with pytest.raises(CoreError, match="the format of this kernel's log is unknown"):
        opened(filled(), **{"SYMBOL(prb)": ""})


# The buffer of older kernels.


def test_a_damaged_record_of_an_older_kernel_is_the_last():
    log = Buffer()
    second = log.record(0, b"one")
    third = log.record(second, b"two")
    log.span(0, log.record(third, b"three"))
    log.memory.put(TEXTS + second + 8, "<H", 7)
    found = opened(log)
    assert list(found.lines()) == ["[    0.000000] one"]
    assert (found.lost, found.why) == (
        1,
        f"record {second} of the kernel's log is damaged: it has 7 bytes, 3 of text",
    )


def test_a_record_that_leaves_the_buffer_is_damage():
    log = Buffer(size=64)
    log.span(40, log.record(40, b"its end is behind the buffer's"))
    found = opened(log)
    assert list(found.lines()) == []
    assert found.lost == 1


def test_an_end_that_is_never_met_ends_the_log():
    log = Buffer()
    log.record(0, b"one")
    log.span(0, 2)
    found = opened(log)
    assert list(found.lines()) == ["[    0.000000] one", "[    0.000000] one"]
    assert found.lost == 1


@pytest.mark.parametrize("size", [0, 15, (1 << 26) + 1])
def test_a_buffer_of_an_impossible_size_is_refused(size):
    log = Buffer()
    log.span(0, 0)
    log.memory.put(LOG_BUF + 8, "<I", size)
    with pytest.raises(CoreError, match=f"a buffer of {size} bytes"):
        opened(log)


@pytest.mark.fuzz("printk")
def test_whatever_is_damaged_the_log_ends_in_lines_that_harm_no_terminal(fuzz):
    for seed in fuzz.seeds(200):
        choose = random.Random(seed)
        old = choose.random() < 0.3
        log = Buffer() if old else Ring(choose.randint(1, 5), choose.randint(7, 9))
        end = 0
        for text in numbered(0, choose.randint(1, 40))[0]:
            if not old:
                log.add(text)
            elif end < 200:
                end = log.record(end, text)
        if old:
            log.span(choose.choice((0, end)), end)
        info = dict(log.info)
        for _ in range(choose.randint(0, 2)):
            key = choose.choice(sorted(info))
            info[key] = choose.choice(("", "-1", "0", "4095", "ffffffff81000000", info[key] + "1"))
        for _ in range(choose.randint(0, 12)):
            at = choose.choice((PRB, LOG_BUF, RINGS, DESCS, TEXTS)) + choose.randrange(256)
            log.memory.data[at] = choose.randrange(256)
        if choose.random() < 0.3:
            at = BASE + choose.randrange(len(log.memory.data))
            log.memory.missing.append((at, at + 512))
        try:
            found = opened(log, **info)
        except CoreError:
            fuzz.done["refused"] += 1
            continue
        count = 0
        for count, text in enumerate(found.lines(), 1):
            assert all(c == "\t" or " " <= c <= "~" for c in text)
            assert count <= 1 << 17
            if count == 2000:  # a large ring over the same memory again and again
                break
        fuzz.done["with lines" if count else "without lines"] += 1


@pytest.mark.parametrize("newest", [0, 1, 3, 6, 99])
def test_the_newest_records_alone_can_be_read(newest):
    lines = numbered(0, 6)[1]
    assert list(opened(filled()).lines(newest)) == lines[max(6 - newest, 0) :]
    log = Buffer(512)
    at = 0
    for text in numbered(0, 6)[0]:
        at = log.record(at, text)
    log.span(0, at)
    expected = [text.replace("[      T1] ", "") for text in lines]
    assert list(opened(log).lines(newest)) == expected[max(6 - newest, 0) :]


def test_records_lost_are_those_of_the_last_walk():
    log = filled()
    begin = log.memory.get(log.slot(5)[0] + 8, "<Q") % 512
    log.memory.missing.append((BASE + TEXTS + begin + 8, BASE + TEXTS + begin + 9))
    found = opened(log)
    for _ in range(2):
        list(found.lines())
        assert found.lost == 1
    list(found.lines(2))
    assert (found.lost, found.why) == (0, "")
