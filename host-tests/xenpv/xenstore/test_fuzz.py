"""The client's end of the ring against a hostile server; see host-tests/fixtures/hostileserver.py.

What `./build.py fuzz xenstore-client` finds becomes a line of host-tests/vectors/xs_hostile.yaml.
"""

import random
from pathlib import Path

import pytest
import yaml
from fixtures.hostileserver import Attacked, play
from fixtures.lyingserver import Plan
from fixtures.ringguard import Guard, guarded
from fixtures.storeguest import StoreGuest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xenpv import abi
from xenpv.errors import NoXenstore, RingCorrupt, Timeout
from xenpv.xenstore.session import Session
from xenpv.xenstore.wire import Packet

VECTORS = yaml.safe_load((Path(__file__).parents[2] / "vectors/xs_hostile.yaml").read_text())
STRAY = Packet(abi.XS_READ, 5, 0, b"to nobody").encode()
EVENT = Packet(abi.XS_WATCH_EVENT, 0, 0, b"data\0token\0").encode()


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=500))
def test_a_hostile_server_causes_nothing_but_errors(data):
    play(data)


@pytest.mark.fuzz("xenstore-client")
def test_a_hostile_server_causes_nothing_but_errors_by_seed(fuzz):
    for seed in fuzz.seeds(100):
        draw = random.Random(seed)
        data = draw.randbytes(draw.choice((30, 100, 300, 1000)))
        # Small numbers reach deeper than any numbers do.
        size = draw.choice((1, 1, 4, 16))
        data = bytes(byte // size for byte in data)
        print(f"bytes {data.hex()}")
        fuzz.done += play(data)


@pytest.mark.parametrize("raw", [STRAY, EVENT], ids=["replies", "events"])
@pytest.mark.parametrize("since", ["the beginning", "connecting"])
def test_a_server_that_never_stops_talking_stops_no_deadline(raw, since):
    # Features 0, indexes 0, a server that takes nothing.
    setup = Attacked(Plan([0, 0, 2]))

    def talk():
        if since == "connecting" and not setup.store.connected():
            return
        setup.machine.clock.now += 1000000
        replies = setup.ring._replies
        while replies.used() + len(raw) <= abi.XENSTORE_RING_SIZE:
            replies.write(raw)
        setup.machine.evtchn.send(0, setup.ring.port)

    async def ask():
        await setup.store.connect()
        await setup.store.read("data/x")

    async def work():
        with pytest.raises((NoXenstore, Timeout)):
            await ask()
        await setup.store.close()

    with guarded(Guard(talk)):
        setup.loop.run(work())


class TestVectors:
    """What a server may say, byte for byte."""

    def outcome(self, vector, pieces):
        session = Session(100)
        for owner, asked in enumerate(vector["asked"]):
            session.request(asked, 0, b"x\0", owner)
        seen = []
        try:
            for piece in pieces:
                session.receive(piece)
                event = session.event()
                while event is not None:
                    seen.append(type(event).__name__)
                    event = session.event()
        except RingCorrupt as error:
            seen.append(str(error))
        return seen

    @pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
    def test_whole(self, vector):
        raw = bytes.fromhex(vector["bytes"])
        seen = self.outcome(vector, [raw])
        assert len(seen) == len(vector["seen"])
        assert all(wanted in one for wanted, one in zip(vector["seen"], seen, strict=True))

    @pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
    def test_split_at_each_byte(self, vector):
        raw = bytes.fromhex(vector["bytes"])
        whole = self.outcome(vector, [raw])
        for cut in range(1, len(raw)):
            assert self.outcome(vector, [raw[:cut], raw[cut:]]) == whole
        assert self.outcome(vector, [bytes([byte]) for byte in raw]) == whole


def test_a_watch_event_s_path_of_any_bytes_is_text_to_whoever_watches():
    setup = StoreGuest()

    async def work(store):
        watch = await store.watch("data")
        await watch.next()
        payload = b"data/\xff\x1b\0" + watch.token.encode() + b"\0"
        setup.ring.leave_reply(Packet(abi.XS_WATCH_EVENT, 0, 0, payload).encode())
        assert await watch.next() == "data/??"

    setup.run(work)
