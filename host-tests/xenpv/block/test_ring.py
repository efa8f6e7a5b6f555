"""Request/response rings: both ends, index wrap, suppression, the other end's lies."""

import contextlib
import itertools
import struct

import pytest
from fixtures.ringpages import RingPages
from hypothesis import given
from hypothesis import strategies as st

from xenpv import abi
from xenpv.block.blkif import LAYOUTS, RESPONSE, X86_64
from xenpv.block.ring import U32, BackRing, FrontRing, slots
from xenpv.errors import RingCorrupt

STRIDE = 112


class Memory(RingPages):
    def __init__(self, pages):
        super().__init__(memoryview(bytearray(pages * 4096)))


def pair(pages=1, start=0):
    """A ring's two ends, their indexes at `start`."""
    memory = Memory(pages)
    front = FrontRing(memory, pages, STRIDE, "test")
    front._req_prod = front._rsp_cons = start
    for offset, value in ((0, start), (4, start + 1), (8, start), (12, start + 1)):
        memory.wr32(offset, value & U32)
    return memory, front, BackRing(memory, pages, X86_64, "test")


def ask(memory, front, number):
    at = front.slot()
    memory.view[at : at + 4] = struct.pack("<I", number)


@pytest.mark.parametrize(
    ("pages", "stride", "count"),
    [(1, 112, 32), (1, 108, 32), (2, 112, 64), (4, 112, 128), (8, 112, 256), (16, 112, 512)],
)
def test_the_number_of_entries_is_the_protocol_s(pages, stride, count):
    assert slots(pages, stride) == count


class Killed(Exception):
    pass


class Mortal:
    """A ring's memory as a process has it that is killed before its store number `left`."""

    def __init__(self, memory, left):
        self.memory, self.view, self.left = memory, self, left
        self.rd32, self.mb = memory.rd32, memory.mb

    def _store(self):
        self.left -= 1
        if self.left < 0:
            raise Killed

    def wr32(self, offset, value):
        self._store()
        self.memory.wr32(offset, value)

    def __getitem__(self, place):
        return self.memory.view[place]

    def __setitem__(self, place, data):
        self._store()
        self.memory.view[place] = data


@pytest.mark.parametrize("protocol", LAYOUTS)
@pytest.mark.parametrize("start", [0, U32 - 1])
def test_a_backend_killed_before_any_store_leaves_each_request_to_the_next_or_answered(
    protocol, start
):
    layout = LAYOUTS[protocol]
    asked = [
        layout.request(abi.BLKIF_OP_WRITE, 1, 1 << 40, 8),
        layout.indirect(abi.BLKIF_OP_READ, 20, 2, 16),
        layout.discard(3, 24, 5),
    ]
    asked = [(layout.parse(entry + bytes(layout.stride - len(entry))), entry) for entry in asked]
    expected = [(request.id, request.op, abi.BLKIF_RSP_ERROR) for request, _ in asked]
    one = 4  # stores for a response; a backend's first store is before any response
    for stores, later in itertools.product(range(3 + one * len(asked)), ((), (2,), (3,), (5,))):
        memory, front, _ = pair(1, start)
        front.stride, front.slots = layout.stride, slots(1, layout.stride)
        for _, entry in asked:
            at = front.slot()
            memory.view[at : at + len(entry)] = entry
        front.push()
        got, served = [], []
        for left in (stores, *later, 1 << 20):
            with contextlib.suppress(Killed):
                serve(BackRing(Mortal(memory, left), 1, layout, "test"), layout, served)
            while (response := front.take(struct.calcsize(RESPONSE))) is not None:
                got.append(struct.unpack(RESPONSE, response))
        assert got == expected
        if stores and not later:
            assert served == expected + expected[-(-(stores - 1) // one) :]


def serve(back, layout, served):
    """Answer all requests, with an error, in one go."""
    taken = []
    while (entry := back.take()) is not None:
        request = layout.parse(entry)
        taken.append((request.id, request.op, abi.BLKIF_RSP_ERROR))
        back.respond(struct.pack(RESPONSE, *taken[-1]))
    served += taken
    back.push()


def test_a_mark_of_the_ring_s_last_round_says_nothing():
    memory, front, back = pair()
    for round in range(2):
        for number in range(front.slots):
            at = front.slot()
            if round == 0:
                memory.view[at : at + 24] = X86_64.request(abi.BLKIF_OP_READ, 0, number, 0)
            else:
                # Front ends may leave what they do not need, such as the sector of a flush.
                flush = X86_64.request(abi.BLKIF_OP_FLUSH_DISKCACHE, 0, 100 + number, 0)
                memory.view[at : at + 16] = flush[:16]
        front.push()
        if round == 0:
            serve(back, X86_64, [])
            while front.take(16) is not None:
                pass
    following, served = BackRing(memory, 1, X86_64, "test"), []
    serve(following, X86_64, served)
    assert [id for id, _, _ in served] == list(range(100, 100 + front.slots))


@pytest.mark.parametrize("pages", [1, 16])
@pytest.mark.parametrize("start", [0, 5, U32 - 3])
def test_requests_and_responses_pass_in_order_over_the_end_of_the_indexes(pages, start):
    memory, front, back = pair(pages, start)
    for round in range(3):
        numbers = [round * 1000 + i for i in range(front.slots)]
        assert front.free() == len(numbers)
        for number in numbers:
            ask(memory, front, number)
        assert front.free() == 0
        front.push()
        for number in numbers:
            taken = back.take()
            assert len(taken) == STRIDE
            assert struct.unpack_from("<I", taken)[0] == number
            back.respond(struct.pack(RESPONSE, number, abi.BLKIF_OP_READ, abi.BLKIF_RSP_OKAY))
        assert back.take() is None
        back.push()
        assert [struct.unpack("<I", front.take(4))[0] for _ in numbers] == numbers
        assert front.take(4) is None


@pytest.mark.parametrize("ahead", [33, 1000, U32])
def test_more_requests_than_entries_are_refused_before_one_is_read(ahead):
    memory, _, back = pair()
    memory.wr32(abi.SRING_REQ_PROD, ahead)
    with pytest.raises(RingCorrupt, match=f"req_prod 0x{ahead:x} is over rsp_prod 0x0"):
        back.take()


def test_requests_over_entries_that_still_await_their_response_are_refused():
    memory, front, back = pair()
    ask(memory, front, 1)
    front.push()
    back.take()
    memory.wr32(abi.SRING_REQ_PROD, 33)
    with pytest.raises(RingCorrupt, match="by more than its 32 entries"):
        back.take()


def test_an_index_that_goes_back_behind_requests_that_were_taken_is_refused():
    memory, front, back = pair()
    ask(memory, front, 1)
    ask(memory, front, 2)
    front.push()
    back.take()
    back.take()
    memory.wr32(abi.SRING_REQ_PROD, 1)
    with pytest.raises(RingCorrupt, match=r"req_prod 0x1 .* behind 0x2"):
        back.take()


@pytest.mark.parametrize("ahead", [2, 33, U32])
def test_more_responses_than_requests_are_refused_before_one_is_read(ahead):
    memory, front, _ = pair()
    ask(memory, front, 1)
    front.push()
    memory.wr32(abi.SRING_RSP_PROD, ahead)
    with pytest.raises(RingCorrupt, match=f"announces {ahead} responses to 1 requests"):
        front.take(12)


def test_a_taken_request_does_not_change_any_more():
    memory, front, back = pair()
    ask(memory, front, 7)
    front.push()
    taken = back.take()
    memory.view[abi.SRING_RING] = 99
    assert taken[0] == 7


def test_an_end_that_is_at_work_gets_no_event():
    memory, front, back = pair()
    ask(memory, front, 1)
    assert front.push()
    ask(memory, front, 2)
    assert not front.push()
    assert back.take()
    assert back.take()
    assert not back.rearm()
    ask(memory, front, 3)
    assert front.push()


def test_arming_too_late_is_noticed():
    memory, front, back = pair()
    assert back.take() is None
    ask(memory, front, 1)
    front.push()
    assert back.rearm()


class Step(Memory):
    """Every access lets the other end act first, as the test drew it."""

    def __init__(self, pages):
        super().__init__(pages)
        self.between = lambda: None

    def rd32(self, offset):
        self.between()
        return super().rd32(offset)

    def wr32(self, offset, value):
        self.between()
        super().wr32(offset, value)


@given(st.lists(st.booleans(), max_size=200), st.integers(0, U32))
def test_no_interleaving_leaves_a_request_without_an_event(choices, start):
    memory = Step(1)
    front = FrontRing(memory, 1, STRIDE, "test")
    front._req_prod = front._rsp_cons = start
    for offset, value in ((0, start), (4, start + 1), (8, start), (12, start + 1)):
        Memory.wr32(memory, offset, value & U32)
    back = BackRing(memory, 1, X86_64, "test")
    told, taken, asked = [0], [0], [0]
    drawn = iter(choices)

    def front_acts():
        if next(drawn, False) and front.free():
            memory.between = lambda: None
            ask(memory, front, asked[0])
            asked[0] += 1
            if front.push():
                told[0] += 1
            memory.between = front_acts

    # The backend works until it may sleep, the front end acting between any two accesses.
    memory.between = front_acts
    while True:
        while back.take() is not None:
            taken[0] += 1
        if not back.rearm():
            if told[0]:
                told[0] = 0
                continue
            break
    memory.between = lambda: None
    assert taken[0] == asked[0]
