"""A xenstore server that answers what a plan says, and plans: choices out of a string of bytes.

Used by host-tests/hostile.py. The rule: the requests that come are read as a server reads them, so
a client whose own stream gets out of order is found.
"""

from xenpv import abi, xs_wire

TYPES = (abi.XS_ERROR, abi.XS_WATCH_EVENT, abi.XS_READ, abi.XS_DIRECTORY, 0xFFFFFFFF)
WORDS = (
    *(b"OK\0", b"ENOENT\0", b"E2BIG\0", b"EAGAIN\0", b"", b"\0", b"\0\0", b"n0\0r7\0", b"x\0"),
    *(b"12345\0", b"99999999999999999999\0", b"-1\0", b"1", b"0\0", b"\xff\xfe\0\x80\0", b"T\0"),
    *(b"data/x\0token\0", b"5\0a\0b\0", b"5\0\0", b"6\0a\0\0", b"E\x1b[2J\0", b"r99999999999\0"),
)
ERRORS = (b"E2BIG\0", b"ENOENT\0", b"EAGAIN\0", b"ENOSYS\0")
PARTS = (b"a\0b\0", b"a\0" * 2000, b"\0", b"c\0\0", b"", b"d")
BELOW = (b"", b"/", b"/x", b"/\xff\xfe", b"/\x1b[2J", b"x", b"\0", b"/" + b"y" * 3000)


class Plan:
    """Numbers out of bytes; 0 once they are used up."""

    def __init__(self, data):
        self._data = iter(data)
        self.over = False

    def byte(self):
        value = next(self._data, None)
        self.over = value is None
        return value or 0

    def u32(self):
        kind = self.byte() % 4
        if kind == 0:
            return self.byte()
        if kind == 1:
            return 0xFFFFFFFF - self.byte()
        return self.byte() << 24 | self.byte() << 8 | self.byte()

    def choose(self, options):
        return options[self.byte() % len(options)]

    def bytes(self):
        if self.byte() & 1:
            return b"".join(self.choose(WORDS) for _ in range(self.byte() % 5))
        return bytes(self.byte() for _ in range(self.byte() % 24))


class Liar:
    """In place of a connection: takes requests as they come and answers what the plan says."""

    def __init__(self, setup, plan):
        self.setup = setup
        self.plan = plan
        self.reset()

    def reset(self):
        self._parser = xs_wire.Parser()
        self._out = b""

    def work(self):
        pass

    def stalled(self):
        return len(self._out) > 8192

    def pending(self):
        return bool(self._out)

    def shuffle(self, choose):
        pass

    def take(self, limit):
        return self._out[:limit]

    def drop(self, count):
        self._out = self._out[count:]

    def receive(self, data):
        # The client's own stream is in order; this raises if it is not.
        self._parser.feed(data)
        packet = self._parser.next()
        while packet is not None:
            self._answer(packet)
            packet = self._parser.next()

    def _answer(self, packet):
        plan = self.plan
        how = plan.byte() % 8
        payload = plan.bytes()
        kind = packet.type
        if plan.over or how == 0:
            payload = b"OK\0"
        elif packet.type == abi.XS_DIRECTORY and how >= 4:
            kind, payload = abi.XS_ERROR, b"E2BIG\0"
        elif packet.type == abi.XS_DIRECTORY_PART and how >= 2:
            payload = plan.choose((b"5\0", b"6\0", b"")) + plan.choose(PARTS)
        elif how == 1:
            kind = abi.XS_ERROR
        elif how == 2:
            return
        elif how == 3:
            for _ in range(plan.byte() % 8):
                self._out += self.setup.event(plan).encode()
        elif how == 4 and plan.byte() % 8 == 0:
            kind = plan.choose(TYPES)
        elif how == 5:
            payload *= 200
        elif how == 7:
            kind, payload = abi.XS_ERROR, plan.choose(ERRORS)
        reply = xs_wire.Packet(kind, packet.req_id, packet.tx_id, payload[:4096]).encode()
        self._out += reply * (2 if how == 6 else 1)
