"""host/hw.py and boot/hw/hw.c: each primitive against a plain Python model."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

import hw

SIZE = 16 * 4096
END = SIZE - 8


class Ram:
    def __init__(self):
        self.ram = bytearray(SIZE)


@pytest.fixture(autouse=True)
def ram():
    return fresh()


def fresh(content=b""):
    machine = Ram()
    machine.ram[: len(content)] = content
    hw.attach(machine)
    return machine.ram


addresses = st.integers(0, END)


@pytest.mark.parametrize(("bits", "code"), [(16, "<H"), (32, "<I"), (64, "<Q")])
class TestRead:
    @given(addr=addresses, data=st.binary(min_size=8, max_size=8))
    def test_it_gives_what_stands_there(self, bits, code, addr, data):
        ram = fresh()
        ram[addr : addr + 8] = data
        assert getattr(hw, f"rd{bits}")(addr) == struct.unpack_from(code, data)[0]

    def test_the_last_bytes_of_ram_can_be_read_and_none_after(self, bits, code):
        read, last = getattr(hw, f"rd{bits}"), SIZE - bits // 8
        assert read(last) == 0
        with pytest.raises(ValueError, match=f"{bits // 8} bytes at 0x{last + 1:x}"):
            read(last + 1)


class TestWrite:
    @given(addr=addresses, value=st.integers(0, 2**32 - 1))
    def test_it_stores_little_endian_and_nothing_else(self, addr, value):
        ram = fresh()
        hw.wr32(addr, value)
        model = bytearray(SIZE)
        struct.pack_into("<I", model, addr, value)
        assert ram == model

    @pytest.mark.parametrize("value", [-1, 2**32, 2**32 + 5, -1 << 70])
    def test_it_refuses_a_value_that_does_not_fit(self, value):
        with pytest.raises(OverflowError):
            hw.wr32(64, value)
        assert hw.rd64(64) == 0

    def test_the_last_bytes_of_ram_can_be_written_and_none_after(self):
        hw.wr32(SIZE - 4, 1)
        with pytest.raises(ValueError, match=f"4 bytes at 0x{SIZE - 3:x}"):
            hw.wr32(SIZE - 3, 0)


def test_mem_is_the_ram_itself(ram):
    hw.mem(100, 4)[:] = b"abcd"
    assert ram[99:105] == b"\0abcd\0"
    ram[101] = 0x21
    assert bytes(hw.mem(100, 4)) == b"a!cd"


OUTSIDE = {
    "mem": lambda: hw.mem(SIZE - 4, 5),
    "negative": lambda: hw.mem(-1, 1),
    "negative length": lambda: hw.mem(8, -1),
    "copy to": lambda: hw.copy(SIZE - 1, 0, 2),
    "copy from": lambda: hw.copy(0, SIZE - 1, 2),
    "test_and_clear_bit": lambda: hw.test_and_clear_bit(SIZE - 8, 64),
    "seg_fill": lambda: hw.seg_fill(SIZE - 8, 0, 2, 0, 7),
    "seg_fill refs": lambda: hw.seg_fill(0, SIZE - 4, 2, 0, 7),
    "grant_fill refs": lambda: hw.grant_fill(0, SIZE - 4, 2, 0, 0, 1),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_outside_of_ram_is_a_value_error_that_names_it(name):
    with pytest.raises(ValueError, match=r"access to -?\d+ bytes at 0x[0-9a-f]+: outside the RAM"):
        OUTSIDE[name]()


def test_a_grant_reference_outside_of_ram_is_refused():
    hw.wr32(0, SIZE // 8)
    for call in (lambda: hw.grant_fill(0, 0, 1, 0, 0, 1), lambda: hw.grant_end(0, 0, 1)):
        with pytest.raises(ValueError, match=f"0x{SIZE:x}"):
            call()


@given(content=st.binary(min_size=64, max_size=64), nr=st.integers(0, 511))
def test_test_and_clear_bit_counts_bits_from_the_lowest_of_the_first_byte(content, nr):
    ram = fresh(content)
    model = int.from_bytes(content, "little")
    assert hw.test_and_clear_bit(0, nr) == bool(model >> nr & 1)
    assert ram[:64] == (model & ~(1 << nr)).to_bytes(64, "little")


@given(content=st.binary(min_size=200, max_size=200), data=st.data())
def test_copy_gives_the_source_as_it_was_even_where_ranges_overlap(content, data):
    length = data.draw(st.integers(0, 200))
    dst = data.draw(st.integers(0, 200 - length))
    src = data.draw(st.integers(0, 200 - length))
    ram = fresh(content)
    model = bytearray(content)
    model[dst : dst + length] = content[src : src + length]
    hw.copy(dst, src, length)
    assert ram[:200] == model


@st.composite
def reference_lists(draw):
    return draw(st.lists(st.integers(0, 511), max_size=40, unique=True))


TABLE, REFS, STATUS = 4096, 8192, 12288


def put_refs(refs):
    hw.mem(REFS, 4 * len(refs))[:] = struct.pack(f"<{len(refs)}I", *refs)


def get_refs(n):
    return list(struct.unpack(f"<{n}I", hw.mem(REFS, 4 * n)))


@given(
    refs=reference_lists(),
    domid=st.integers(0, 0x7FEF),
    gfn=st.integers(0, 2**31),
    flags=st.sampled_from([1, 1 | 4]),
)
def test_grant_fill_grants_consecutive_frames_through_the_entries_named(refs, domid, gfn, flags):
    ram = fresh()
    put_refs(refs)
    hw.grant_fill(TABLE, REFS, len(refs), domid, gfn, flags)
    model = bytearray(4096)
    for i, ref in enumerate(refs):
        struct.pack_into("<HHI", model, 8 * ref, flags, domid, gfn + i)
    assert ram[TABLE : TABLE + 4096] == model
    assert get_refs(len(refs)) == refs


@given(refs=reference_lists(), data=st.data())
def test_grant_end_clears_what_is_free_and_returns_what_the_peer_holds(refs, data):
    ram = fresh()
    flags = [data.draw(st.sampled_from([1, 5, 1 | 8, 1 | 16, 1 | 24, 0])) for _ in refs]
    for ref, flag in zip(refs, flags, strict=True):
        struct.pack_into("<HHI", ram, TABLE + 8 * ref, flag, 3, 77)
    put_refs(refs)
    held = {ref: flag for ref, flag in zip(refs, flags, strict=True) if flag & 24}
    assert hw.grant_end(TABLE, REFS, len(refs)) == len(held)
    after = get_refs(len(refs))
    assert set(after[: len(held)]) == set(held)
    assert sorted(after) == sorted(refs)
    for ref in refs:
        assert hw.rd16(TABLE + 8 * ref) == held.get(ref, 0)


few_references = reference_lists().map(lambda refs: [ref for ref in refs if ref < 256])


@given(
    refs=few_references,
    domid=st.integers(0, 0x7FEF),
    gfn=st.integers(0, 2**52),
    flags=st.sampled_from([1, 1 | 4]),
)
def test_grant_fill_v2_grants_frames_of_more_than_32_bits(refs, domid, gfn, flags):
    ram = fresh()
    put_refs(refs)
    hw.grant_fill_v2(TABLE, REFS, len(refs), domid, gfn, flags)
    model = bytearray(4096)
    for i, ref in enumerate(refs):
        struct.pack_into("<HH4xQ", model, 16 * ref, flags, domid, gfn + i)
    assert ram[TABLE : TABLE + 4096] == model


@given(refs=few_references, data=st.data())
def test_grant_end_v2_ends_all_and_returns_what_the_status_says_the_peer_holds(refs, data):
    ram = fresh()
    status = [data.draw(st.sampled_from([0, 8, 16, 24])) for _ in refs]
    for ref, word in zip(refs, status, strict=True):
        struct.pack_into("<HH4xQ", ram, TABLE + 16 * ref, 1, 3, 77)
        struct.pack_into("<H", ram, STATUS + 2 * ref, word)
    put_refs(refs)
    held = {ref for ref, word in zip(refs, status, strict=True) if word}
    assert hw.grant_end_v2(TABLE, STATUS, REFS, len(refs)) == len(held)
    after = get_refs(len(refs))
    assert set(after[: len(held)]) == held
    assert sorted(after) == sorted(refs)
    assert not any(hw.rd16(TABLE + 16 * ref) for ref in refs)


@given(refs=reference_lists(), first=st.integers(0, 7), last=st.integers(0, 7))
def test_seg_fill_cuts_only_the_first_and_the_last_page(refs, first, last):
    ram = fresh()
    put_refs(refs)
    hw.seg_fill(0, REFS, len(refs), first, last)
    model = bytearray(4096)
    for i, ref in enumerate(refs):
        begin = first if i == 0 else 0
        end = last if i == len(refs) - 1 else 7
        struct.pack_into("<IBB", model, 8 * i, ref, begin, end)
    assert ram[:4096] == model


@given(content=st.binary(min_size=1, max_size=40), data=st.data())
def test_run_end_is_the_first_bit_that_differs(content, data):
    ram = fresh(b"xyz" + content)
    count = 8 * len(content)
    end = data.draw(st.integers(1, count))
    bit = data.draw(st.integers(0, end - 1))
    bits = [ram[3 + i // 8] >> i % 8 & 1 for i in range(end)]
    other = [i for i in range(bit, end) if bits[i] != bits[bit]]
    assert hw.run_end(3, bit, end) == min([*other, end])


@pytest.mark.parametrize("value", [0, 255])
def test_run_end_counts_to_the_end_however_long_the_run_is(value):
    fresh(bytes([value]) * 4096)
    for bit, end in ((0, 32768), (7, 32767), (8, 16), (1, 9), (32767, 32768)):
        assert hw.run_end(0, bit, end) == end


FILTER, STRUCT_PAGES, KEEP = 0, 4096, 8192


def put_filter(base, end, size=64):
    hw.mem(FILTER, hw.FILTER_SIZE)[:] = bytes(hw.FILTER_SIZE)
    hw.mem(FILTER, 24)[:] = struct.pack("<3Q", base, end, size)


WRONG_PAGES = {
    "before the window": lambda: hw.classify(FILTER, STRUCT_PAGES, 99, 1, KEEP),
    "behind the window": lambda: hw.classify(FILTER, STRUCT_PAGES, 110, 11, KEEP),
    "negative": lambda: hw.classify(FILTER, STRUCT_PAGES, 110, -1, KEEP),
    "struct pages": lambda: hw.classify(FILTER, SIZE - 64, 110, 2, KEEP),
    "bits": lambda: hw.classify(FILTER, STRUCT_PAGES, 110, 2, SIZE - 2),
    "filter": lambda: hw.classify(SIZE - 8, STRUCT_PAGES, 110, 2, KEEP),
}


@pytest.mark.parametrize("name", WRONG_PAGES)
def test_classify_refuses_what_is_not_in_the_window_or_in_ram(name):
    put_filter(100, 120)
    with pytest.raises(ValueError, match=r"not in the filter's window|outside the RAM"):
        WRONG_PAGES[name]()


def test_run_end_refuses_an_empty_range():
    for bit, end in ((3, 3), (4, 3), (-1, 3)):
        with pytest.raises(ValueError, match="no bits"):
            hw.run_end(0, bit, end)


TOO_WIDE = {
    "test_and_clear_bit": lambda: hw.test_and_clear_bit(0, 2**32),
    "test_and_clear_bit negative": lambda: hw.test_and_clear_bit(0, -1),
    "grant_fill domid": lambda: hw.grant_fill(TABLE, REFS, 1, 2**16, 0, 1),
    "grant_fill gfn": lambda: hw.grant_fill(TABLE, REFS, 1, 0, 2**32, 1),
    "grant_fill flags": lambda: hw.grant_fill(TABLE, REFS, 1, 0, 0, 2**16),
    "grant_fill_v2 gfn": lambda: hw.grant_fill_v2(TABLE, REFS, 1, 0, 2**64, 1),
    "seg_fill": lambda: hw.seg_fill(TABLE, REFS, 1, 0, 256),
}


@pytest.mark.parametrize("name", TOO_WIDE)
def test_a_value_that_does_not_fit_its_field_is_an_overflow_error(ram, name):
    with pytest.raises(OverflowError):
        TOO_WIDE[name]()
    assert not any(ram)


def test_barriers_can_be_called():
    hw.rmb()
    hw.wmb()
    hw.mb()


def test_attached_is_about_a_machine_within_its_block_only():
    ram = fresh()
    other = Ram()
    with hw.attached(other):
        hw.wr32(7, 1)
    assert (other.ram[7], ram[7], hw.rd32(7)) == (1, 0, 0)


def test_a_machine_may_have_a_word_change_while_it_is_read():
    class Changing(Ram):
        def reread(self, addr, value):
            return value + addr

    hw.attach(Changing())
    hw.wr32(8, 100)
    assert hw.rd32(8) == 108
    fresh()
    assert hw.rd32(8) == 0


def test_what_is_not_memory_goes_to_the_machine():
    class Machine(Ram):
        def hypercall(self, nr, args):
            return -nr - sum(args)

        def now(self):
            return 12345

        def watchdog(self, seconds):
            seen.append(("watchdog", seconds))

        def halt(self):
            seen.append(("halt",))

        def fault(self, kind):
            seen.append(("fault", kind))

    seen = []
    hw.attach(Machine())
    assert hw.hypercall(29, 3, 4) == -36
    assert hw.now() == 12345
    assert hw.watchdog(30) is None
    hw.halt()
    hw.fault("page")
    assert seen == [("watchdog", 30), ("halt",), ("fault", "page")]
