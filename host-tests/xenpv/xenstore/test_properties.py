"""Properties of the xenstore client's end, against simple models.

A stream is the same however it is cut; replies find their callers in any order, whoever has gone
away meanwhile; events keep their order.
"""

from fixtures.storeguest import HOME, StoreGuest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pvxen.machine import Machine
from xenpv import abi
from xenpv.errors import RingCorrupt, Timeout
from xenpv.loop import SECOND
from xenpv.xenstore.session import Reply, Session
from xenpv.xenstore.wire import Packet, Parser

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


async def reader(store, i, timeout, seen):
    """Reads node i; tells what it got, or that it was too late."""
    try:
        seen[i] = await store.request(abi.XS_READ, b"data/%d\0" % i, "read", timeout=timeout)
    except Timeout:
        seen[i] = None


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(1, 1 << 30),
    callers=st.lists(
        st.tuples(st.sampled_from(["wait", "cancel", "late"]), st.integers(0, 3)),
        min_size=1,
        max_size=25,
    ),
)
def test_callers_that_go_away_or_are_too_late_put_nobody_out_of_step(seed, callers):
    setup = StoreGuest(Machine(seed=seed), reorder=True, piecemeal=True)
    for i in range(len(callers)):
        setup.server.write(f"{HOME}/data/{i}", f"value {i} " * 9, "n1")

    async def work(store):
        seen = {}
        tasks = []
        for i, (fate, delay) in enumerate(callers):
            timeout = 1 if fate == "late" else 5 * SECOND
            tasks.append(setup.loop.spawn(reader(store, i, timeout, seen)))
            if delay:
                await setup.loop.sleep(delay * 1000)
            for task, (other, _) in zip(tasks, callers, strict=False):
                if other == "cancel" and delay == 3:
                    task.cancel()
        while not all(task.done for task in tasks):
            await setup.loop.sleep(SECOND // 1000)
        for i, (fate, _) in enumerate(callers):
            allowed = [f"value {i} ".encode() * 9]
            allowed += {"wait": [], "late": [None], "cancel": ["cancelled"]}[fate]
            assert seen.get(i, "cancelled") in allowed
        assert await store.read("data/0") == b"value 0 " * 9
        await store.close()

    setup.run(work)
    assert setup.store._session.flying() == 0


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(1, 1 << 30), changes=st.lists(st.integers(0, 9), max_size=40))
def test_events_between_replies_keep_the_order_of_the_changes(seed, changes):
    setup = StoreGuest(Machine(seed=seed), piecemeal=True)

    async def work(store):
        watch = await store.watch("data", limit=100)
        assert await watch.next() == "data"
        for i in changes:
            await store.loop.gather([store.write(f"data/{i}", "x"), store.read("name")])
        for i in changes:
            assert await watch.next() == f"data/{i}"
        assert (watch.waiting(), watch.dropped) == (0, 0)

    setup.run(work)
