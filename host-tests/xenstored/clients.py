"""A client of the server by hand: packets in, packets out, no transport."""

from pvdump.xenstored.server import Xenstored
from xenpv import abi
from xenpv.xenstore.wire import Packet, Parser

HOME = "/local/domain/1"


def guests_store(**options):
    """A server with the nodes that a toolstack makes for domain 1, some not for its eyes."""
    server = Xenstored(**options)
    server.write("/local/domain/0", "")
    server.write(HOME, "", "n0 r1")
    server.write(f"{HOME}/data", "", "n1")
    server.write(f"{HOME}/secret", "", "n0")
    return server


class Client:
    def __init__(self, server, domid=1):
        self.connection = server.introduce(domid) if domid else server.connect(domid)
        self._parser = Parser()
        self.events = []  # payloads of events that came so far, with a | for each NUL
        self.req_id = 0

    def output(self):
        """All that the server has sent, as (type, req_id, tx_id, payload)."""
        packets = []
        while self.connection.pending():
            data = self.connection.take(7)
            self._parser.feed(data)
            self.connection.drop(len(data))
            self.connection.work()
            packet = self._parser.next()
            while packet is not None:
                packets.append((packet.type, packet.req_id, packet.tx_id, packet.payload))
                packet = self._parser.next()
        return packets

    def ask(self, kind, payload, tx_id=0):
        """Send a request. Returns the payload of its reply, or the error's name."""
        self.req_id += 1
        self.connection.receive(Packet(kind, self.req_id, tx_id, payload).encode())
        replies = []
        for packet in self.output():
            if packet[0] == abi.XS_WATCH_EVENT:
                assert packet[1:3] == (0, 0)
                self.events.append(text(packet[3]))
            else:
                replies.append(packet)
        ((got, req_id, tx, answer),) = replies
        assert (req_id, tx) == (self.req_id, tx_id)
        if got == abi.XS_ERROR:
            return answer.rstrip(b"\0").decode()
        assert got == kind
        return answer

    def events_since(self):
        """The events since this was last asked."""
        self.events += [text(p[3]) for p in self.output() if p[0] == abi.XS_WATCH_EVENT]
        events, self.events = self.events, []
        return events

    def start(self):
        return int(self.ask(abi.XS_TRANSACTION_START, b"\0")[:-1])

    def end(self, number, commit=True):
        return self.ask(abi.XS_TRANSACTION_END, b"T\0" if commit else b"F\0", number)

    def watch(self, path, token="t", depth=None):
        words = [path, token] if depth is None else [path, token, str(depth)]
        return self.ask(abi.XS_WATCH, "".join(word + "\0" for word in words).encode())

    def write(self, path, value="", tx_id=0):
        return self.ask(abi.XS_WRITE, f"{path}\0{value}".encode(), tx_id)

    def read(self, path, tx_id=0):
        return self.ask(abi.XS_READ, f"{path}\0".encode(), tx_id)

    def rm(self, path, tx_id=0):
        return self.ask(abi.XS_RM, f"{path}\0".encode(), tx_id)


def text(payload):
    return payload.decode().replace("\0", "|")
