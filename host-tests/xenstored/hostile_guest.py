"""Guests that do what no guest should, directed by a string of bytes; and what they may not cause.

play_ring() runs one on its shared page, play_requests() sends requests of all kinds, as a guest and
as domain 0. Both return what was done, and raise AssertionError when a bystander is not served, the
tree is not whole, a request has not exactly one reply, or anything but the page was written. What
the server raises is let through. The same bytes give the same run.
"""

from collections import Counter

from fixtures.hostileserver import Plan
from xenstored.clients import HOME, Client, guests_store

import hw
from pvdump.xenstored.domain import DOM0
from pvdump.xenstored.trace import NAMES
from pvxen.machine import Machine
from pvxen.storering import RingTransport
from xenpv import abi
from xenpv.bytering import ByteRing
from xenpv.errors import RingCorrupt
from xenpv.xenstore import wire
from xenpv.xenstore.wire import ERRORS, Packet, Parser

GFN = 0x100
PAGE = GFN * abi.PAGE_SIZE
STEPS = 60
GUARD = b"\xa5" * abi.PAGE_SIZE
STARTS = ((0, 0), (0x3B5, 0x349), (0xFFFFFFF0, 0xFFFFFFFE))
TYPES = (*NAMES, 20, 27, 0xFFFF, 0xFFFFFFFF)
PATHS = (
    *(b"data/a\0", b"data/a/b\0", b"data\0", b"/\0", b"/local/domain/1/data/c\0", b"secret\0"),
    *(b"/local/domain/1\0", b"@releaseDomain\0", b"@introduceDomain/1\0", b"data//a\0", b"\0"),
)
NUMBERS = (b"0\0", b"1\0", b"2\0", b"5\0", b"7\0", b"65535\0", b"4294967295\0", b"-1\0", b"x\0")
PERMS = (b"n1\0", b"b2\0", b"r1\0", b"n0\0", b"w2\0", b"x0\0", b"n99999\0")
VALUES = (b"", b"v", b"\0", b"v" * 300, b"v" * 2020, b"v" * 4000)
FLAGS = (b"T\0", b"T\0", b"F\0", b"\0")
TOKENS = (b"t\0", b"u\0", b"\0", b"t" * 3000 + b"\0")
QUOTAS = (b"watches\0", b"nodes\0", b"node-size\0", b"none\0")
COMMANDS = (b"check\0", b"quota\0", b"help\0", b"print\0a\0", b"quota\x001\0", b"log\0")
WORDS = PATHS + NUMBERS + PERMS + VALUES + FLAGS + TOKENS + QUOTAS + COMMANDS
SHAPES = {
    abi.XS_CONTROL: (COMMANDS,),
    abi.XS_DIRECTORY: (PATHS,),
    abi.XS_READ: (PATHS,),
    abi.XS_GET_PERMS: (PATHS,),
    abi.XS_WATCH: (PATHS, TOKENS),
    abi.XS_UNWATCH: (PATHS, TOKENS),
    abi.XS_TRANSACTION_END: (FLAGS,),
    abi.XS_INTRODUCE: (NUMBERS, NUMBERS, NUMBERS),
    abi.XS_RELEASE: (NUMBERS,),
    abi.XS_GET_DOMAIN_PATH: (NUMBERS,),
    abi.XS_WRITE: (PATHS, VALUES),
    abi.XS_MKDIR: (PATHS,),
    abi.XS_RM: (PATHS,),
    abi.XS_SET_PERMS: (PATHS, PERMS, PERMS),
    abi.XS_IS_DOMAIN_INTRODUCED: (NUMBERS,),
    abi.XS_RESUME: (NUMBERS,),
    abi.XS_SET_TARGET: (NUMBERS, NUMBERS),
    abi.XS_DIRECTORY_PART: (PATHS, NUMBERS),
    wire.XS_SET_FEATURE: (NUMBERS, NUMBERS),
    wire.XS_GET_QUOTA: (NUMBERS, QUOTAS),
    wire.XS_SET_QUOTA: (QUOTAS, NUMBERS),
}
TRANSACTIONS = (0, 0, 0, 0, 1, 1, 2, 9)


def packet(plan):
    """A request of any type, three in four with words of the kinds that belong to it."""
    kind = plan.choose(TYPES)
    if plan.byte() % 4:
        words = [plan.choose(options) for options in SHAPES.get(kind, ())]
    else:
        words = [plan.choose(WORDS) for _ in range(plan.byte() % 5)]
    payload = b"".join(words)[: abi.XENSTORE_PAYLOAD_MAX]
    return Packet(kind, plan.u32(), plan.choose(TRANSACTIONS), payload)


def bystander_is_served(server):
    client = Client(server, DOM0)
    assert client.write("/bystander", "x") == b"OK\0"
    assert client.read("/bystander") == b"x"
    assert client.rm("/bystander") == b"OK\0"
    assert server.tree.check() == []
    server.disconnect(client.connection)


class Guest:
    """A guest on its page. done: what it did, by name."""

    def __init__(self, plan):
        self.plan = plan
        self.done = Counter()
        self.machine = Machine(seed=plan.byte() % 4)
        hw.attach(self.machine)
        hw.mem(PAGE - len(GUARD), len(GUARD))[:] = GUARD
        hw.mem(PAGE + abi.PAGE_SIZE, len(GUARD))[:] = GUARD
        self.server = guests_store()
        self.port = self.machine.evtchn.alloc_unbound(1, 0)
        self.ring = RingTransport(
            self.machine,
            self.server,
            GFN,
            self.port,
            start=plan.choose(STARTS),
            reorder=bool(plan.byte() & 1),
            piecemeal=bool(plan.byte() & 1),
        )
        self.requests = ByteRing(PAGE, 1024, PAGE + 2052, PAGE + 2048, "request")
        self.replies = ByteRing(PAGE + 1024, 1024, PAGE + 2060, PAGE + 2056, "reply")

    def act(self):
        many = (self.send,) * 8 + (self.take,) * 4
        kind = self.plan.choose((*many, self.put, self.poke, self.flag, self.flag))
        try:
            kind()
        except RingCorrupt:  # its own indexes, which it broke before
            self.done["found its ring broken"] += 1
        self.done[kind.__name__] += 1
        whole = self.ring.broken is None
        self.machine.evtchn.send(1, self.port)
        self.machine.clock.idle()
        self.done["broke its ring"] += whole and self.ring.broken is not None

    def send(self):
        self.requests.write(packet(self.plan).encode())

    def take(self):
        self.replies.read(self.plan.u32() & 0x7FF)

    def put(self):
        """Bytes of no packet."""
        self.requests.write(self.plan.bytes())

    def poke(self):
        """Any word of the page's head."""
        hw.wr32(PAGE + 2048 + 4 * (self.plan.byte() % 8), self.plan.u32())

    def flag(self):
        hw.wr32(PAGE + abi.XENSTORE_RING_CONNECTION, abi.XENSTORE_RECONNECT)


def play_ring(data):
    plan = Plan(data)
    guest = Guest(plan)
    steps = 0
    while not plan.over and steps < STEPS:
        guest.act()
        steps += 1
    bystander_is_served(guest.server)
    assert bytes(hw.mem(PAGE - len(GUARD), len(GUARD))) == GUARD
    assert bytes(hw.mem(PAGE + abi.PAGE_SIZE, len(GUARD))) == GUARD
    # Whatever it did, a reconnect makes the ring whole.
    guest.flag()
    guest.machine.evtchn.send(1, guest.port)
    guest.machine.clock.idle()
    guest.requests.write(Packet(abi.XS_GET_DOMAIN_PATH, 77, 0, b"1\0").encode())
    guest.machine.evtchn.send(1, guest.port)
    parser = Parser()
    answer = None
    while answer is None:
        guest.machine.evtchn.send(1, guest.port)
        guest.machine.clock.idle()
        came = guest.replies.read(1024)
        assert came, "nothing came after the reconnect"
        parser.feed(came)
        answer = parser.next()
    assert (answer.req_id, answer.payload) == (77, HOME.encode() + b"\0")
    return guest.done


def play_requests(data):
    plan = Plan(data)
    server = guests_store()
    lines = []
    server.log = lines.append
    server.trace = lines.append
    done = Counter()
    clients = {}
    steps = 0
    while not plan.over and steps < STEPS:
        steps += 1
        domid = plan.choose((1, DOM0, 2))
        if domid not in clients or (domid and server.domains.get(domid) is None):
            connection = server.introduce(domid) if domid else server.connect(DOM0)
            clients[domid] = (connection, Parser())
        connection, parser = clients[domid]
        asked = packet(plan)
        raw = asked.encode()
        cut = plan.byte() % len(raw)
        connection.receive(raw[:cut])
        connection.receive(raw[cut:])
        while connection.pending():
            size = 1 + plan.byte()
            piece = connection.take(size)
            assert 0 < len(piece) <= size
            connection.drop(len(piece))
            parser.feed(piece)
        replies = 0
        came = parser.next()
        while came is not None:
            if came.type == abi.XS_WATCH_EVENT:
                assert (came.req_id, came.tx_id) == (0, 0)
                assert came.payload.count(b"\0") == 2
                done["event"] += 1
            else:
                assert (came.req_id, came.tx_id) == (asked.req_id, asked.tx_id)
                if came.type == abi.XS_ERROR:
                    assert came.payload[:-1].decode() in ERRORS
                    done[came.payload[:-1].decode()] += 1
                else:
                    assert came.type == asked.type
                    done[NAMES[came.type]] += 1
                replies += 1
            came = parser.next()
        assert replies == 1
    assert all("\n" not in line for line in lines)
    bystander_is_served(server)
    return done
