"""Properties of the xenstore client's end, against simple models.

A stream is the same however it is cut; replies find their callers in any order; a ring is a queue
of bytes whose ends never both sleep while there is work.
"""

import interleaved
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from xenpv import abi
from xenpv.errors import RingCorrupt
from xenpv.xs_session import Reply, Session
from xenpv.xs_wire import PACKET_MAX, Packet, Parser

TYPES = (abi.XS_READ, abi.XS_WRITE, abi.XS_DIRECTORY, abi.XS_RM)


def taken(session):
    """All events that a session has now, as plain values."""
    found = []
    event = session.event()
    while event is not None:
        if isinstance(event, Reply):
            found.append((event.owner, event.error, event.payload))
        else:
            found.append((event.path, event.token))
        event = session.event()
    return found


def fed(session, raw, cuts):
    """Feed a stream in pieces of these sizes, the rest in one; no more than there is room for."""
    found = []
    sizes = iter(cuts)
    while raw:
        size = min(next(sizes, len(raw)) or 1, session.room())
        assert size > 0, "no room although all events were taken"
        session.receive(raw[:size])
        raw = raw[size:]
        found += taken(session)
    return found


@st.composite
def streams(draw):
    """(requests, what comes): replies in any order, errors, watch events, replies to nobody."""
    requests = draw(st.lists(st.sampled_from(TYPES), max_size=8))
    answers = []
    for i, type in enumerate(requests):
        if draw(st.booleans()):
            answers.append(Packet(abi.XS_ERROR, 100 + i, i, b"ENOENT\0"))
        else:
            answers.append(Packet(type, 100 + i, i, draw(st.binary(max_size=60))))
    words = st.binary(max_size=20).map(lambda raw: raw.replace(b"\0", b""))
    for path, token in draw(st.lists(st.tuples(words, words), max_size=5)):
        answers.append(Packet(abi.XS_WATCH_EVENT, 0, 0, path + b"\0" + token + b"\0"))
    for type in draw(st.lists(st.sampled_from(TYPES), max_size=3)):
        answers.append(Packet(type, 7, 0, b"to nobody"))
    return requests, draw(st.permutations(answers))


def session_for(requests):
    session = Session(100)
    for i, type in enumerate(requests):
        session.request(type, i, b"x\0", i)
    return session


@given(streams(), st.lists(st.integers(1, 40), max_size=200))
def test_a_stream_gives_the_same_events_however_it_is_cut(stream, cuts):
    requests, answers = stream
    raw = b"".join(packet.encode() for packet in answers)
    assert fed(session_for(requests), raw, cuts) == fed(session_for(requests), raw, [])


@given(streams())
def test_events_come_in_the_order_of_the_stream_and_replies_reach_who_asked(stream):
    requests, answers = stream
    expected = []
    strays = 0
    for packet in answers:
        if packet.type == abi.XS_WATCH_EVENT:
            expected.append(tuple(packet.payload.split(b"\0")[:2]))
        elif packet.req_id >= 100:
            error = "ENOENT" if packet.type == abi.XS_ERROR else None
            expected.append((packet.req_id - 100, error, packet.payload))
        else:
            strays += 1
    session = session_for(requests)
    assert fed(session, b"".join(packet.encode() for packet in answers), []) == expected
    assert (session.strays, session.flying()) == (strays, 0)


@given(st.binary(max_size=400), st.lists(st.integers(1, 40), max_size=100))
def test_any_bytes_give_events_or_one_named_fault_however_they_are_cut(raw, cuts):
    def outcome(pieces):
        session = session_for(TYPES)
        found = []
        try:
            left, sizes = raw, iter(pieces)
            while left:
                size = next(sizes, len(left))
                session.receive(left[:size])
                left = left[size:]
                found += taken(session)
        except RingCorrupt as error:
            found.append(str(error))
        return found

    assert outcome(cuts) == outcome([])


@given(st.lists(st.tuples(st.integers(0, 0xFFFFFFFF), st.binary(max_size=4096)), max_size=6))
def test_room_is_never_short_of_a_packet_that_is_half_there(packets):
    parser = Parser()
    for req_id, payload in packets:
        raw = Packet(abi.XS_READ, req_id, 0, payload).encode()
        while raw:
            size = min(parser.room(), len(raw))
            assert size > 0
            parser.feed(raw[:size])
            raw = raw[size:]
            packet = parser.next()
        assert (packet.req_id, packet.payload) == (req_id, payload)


class Conversation(RuleBasedStateMachine):
    """Requests, callers that go, bytes that are sent, replies in any order: never out of step.

    The model is a list of what was asked and of who still waits.
    """

    @initialize(first=st.sampled_from([0, 100, 0x7FFFFFFE]))
    def begin(self, first):
        self.session = Session(first)
        self.asked = {}  # req_id -> (type, tx_id, owner) of each request without a reply
        self.waiting = set()
        self.sent = b""
        self.expected = b""
        self.count = 0

    @rule(type=st.sampled_from(TYPES), tx_id=st.integers(0, 5), size=st.integers(0, 4096))
    def request(self, type, tx_id, size):
        payload = b"p" * size
        if not self.session.fits(payload):
            return
        owner = self.count
        self.count += 1
        req_id = self.session.request(type, tx_id, payload, owner)
        assert req_id not in self.asked, "an id in use was given again"
        self.asked[req_id] = (type, tx_id, owner)
        self.waiting.add(req_id)
        self.expected += Packet(type, req_id, tx_id, payload).encode()

    @rule(count=st.integers(1, 3000))
    def send(self, count):
        raw = bytes(self.session.outgoing()[:count])
        self.session.sent(len(raw))
        self.sent += raw

    @precondition(lambda self: self.waiting)
    @rule(data=st.data())
    def leave(self, data):
        req_id = data.draw(st.sampled_from(sorted(self.waiting)))
        self.session.abandon(req_id)
        self.waiting.discard(req_id)

    @precondition(lambda self: self.asked)
    @rule(data=st.data(), wrong=st.booleans())
    def reply(self, data, wrong):
        req_id = data.draw(st.sampled_from(sorted(self.asked)))
        type, tx_id, owner = self.asked.pop(req_id)
        waited = req_id in self.waiting
        self.waiting.discard(req_id)
        if wrong and not waited:
            type = abi.XS_SET_PERMS  # nobody looks at it
        raw = Packet(type, req_id, tx_id, b"for %d" % owner).encode()
        cut = data.draw(st.integers(0, len(raw)))
        before = self.session.strays
        self.session.receive(raw[:cut])
        early = taken(self.session)
        self.session.receive(raw[cut:])
        seen = early + taken(self.session)
        assert seen == ([(owner, None, b"for %d" % owner)] if waited else [])
        assert self.session.strays == before + (not waited)

    @rule(token=st.binary(min_size=1, max_size=9))
    def change(self, token):
        token = token.replace(b"\0", b"-")
        self.session.receive(Packet(abi.XS_WATCH_EVENT, 0, 0, b"path\0" + token + b"\0").encode())
        assert taken(self.session) == [(b"path", token)]

    @invariant()
    def in_step(self):
        assert self.session.flying() == len(self.asked)
        assert sorted(self.session.owners()) == sorted(self.asked[n][2] for n in self.waiting)
        assert self.expected.startswith(self.sent)
        assert self.sent + bytes(self.session.outgoing()) == self.expected


TestConversation = Conversation.TestCase
TestConversation.settings = settings(stateful_step_count=40, deadline=None)


# The ring, with both its ends at work at the same time.

SIZE = 4
REQUEST, REPLY = 0, 16


def ring_at(kind, addr, name):
    return kind(addr, SIZE, addr + SIZE + 4, addr + SIZE, name)


def tell(*rings):
    for ring in rings:
        yield from ring.told()
    yield interleaved.TELL


def flush(*rings):
    if any(ring.due for ring in rings):
        yield from tell(*rings)


def client(requests, replies, data, piece):
    """Sends all and wants all back, in the steps of xenstore.Xenstore and xs_ring.RingTransport."""
    out, got = data, b""
    yield from tell(requests, replies)
    while len(got) < len(data):
        moved = False
        while True:
            raw = yield from replies.read(piece)
            if not raw:
                break
            got += raw
            moved = True
        while out:
            count = yield from requests.write(out)
            if count == 0:
                break
            out = out[count:]
            moved = True
        yield from flush(requests, replies)
        if not moved:
            yield interleaved.SLEEP
    assert got == data, "the bytes are others"


def server(requests, replies, count, piece, rule):
    """Gives back what it gets, and sleeps whenever it can do nothing.

    rule: "sparing" tells by `due`, "telling" after each move, "busy" reads nothing while replies
    wait for room.
    """
    held, given = b"", 0
    yield interleaved.SLEEP
    while given < count:
        moved = False
        if not (held and rule == "busy"):
            raw = yield from requests.read(piece)
            held += raw
            moved = bool(raw)
        done = yield from replies.write(held)
        held = held[done:]
        given += done
        moved = moved or done > 0
        if moved and rule == "telling":
            yield from tell(requests, replies)
        else:
            yield from flush(requests, replies)
        if not moved:
            yield interleaved.SLEEP


def echo(choices, count=11, start=0, piece=3, rule="sparing", kind=interleaved.ByteRing):
    """Run both ends on one memory; choices: who acts next, see interleaved.run()."""
    memory = bytearray(32)
    for addr in (REQUEST, REPLY):
        for index in (SIZE, SIZE + 4):
            memory[addr + index : addr + index + 4] = start.to_bytes(4, "little")
    data = bytes(range(1, count + 1))
    near = [ring_at(kind, addr, "near") for addr in (REQUEST, REPLY)]
    far = [ring_at(kind, addr, "far") for addr in (REQUEST, REPLY)]
    cpus = [
        interleaved.Cpu(memory, client(*near, data, piece)),
        interleaved.Cpu(memory, server(*far, count, piece, rule)),
    ]
    cpus[0].peer, cpus[1].peer = cpus[1], cpus[0]
    interleaved.run(cpus, choices)
    return cpus


RULES = pytest.mark.parametrize("rule", ["sparing", "telling", "busy"])


@RULES
@settings(max_examples=200, deadline=None)
@given(
    choices=st.binary(max_size=600),
    start=st.sampled_from([0, 3, 0xFFFFFFFE]),
    piece=st.integers(1, SIZE),
)
def test_no_end_of_a_ring_sleeps_for_ever_and_no_byte_is_lost(rule, choices, start, piece):
    echo(choices, start=start, piece=piece, rule=rule)


@RULES
@pytest.mark.parametrize("first", range(3))
def test_one_end_may_be_held_up_anywhere_for_any_time(rule, first):
    # One end goes on for so long, then the other, then by turns: every place and every length.
    for before in range(0, 120, 4):
        for meanwhile in range(1, 120, 5):
            echo(bytes([first]) * before + bytes([first + 1]) * meanwhile, rule=rule)


def echo_in_many_orders(kind):
    for seed in range(20000):
        echo(seed.to_bytes(3, "little") * 60, kind=kind)


def test_the_model_finds_a_barrier_that_is_missing():
    # Without it, "is the other end still behind?" is asked before the bytes are there to be seen.
    careless = interleaved.interleaved(interleaved.ring.ByteRing, without=("mb",))
    with pytest.raises(AssertionError, match="everyone sleeps"):
        echo_in_many_orders(careless)


def test_the_model_finds_an_end_that_tells_too_little():
    class Silent(interleaved.ByteRing):
        def read(self, limit):
            raw = yield from super().read(limit)
            self.due = False
            return raw

    with pytest.raises(AssertionError, match="everyone sleeps"):
        echo_in_many_orders(Silent)


def test_fewer_tells_than_moves_are_enough():
    cpus = echo(b"", count=40)
    assert sum(cpu.tells for cpu in cpus) < 40


def test_the_largest_packet_is_what_it_says():
    assert len(Packet(abi.XS_READ, 1, 0, bytes(4096)).encode()) == PACKET_MAX
