"""INTRODUCE by a client of the store, where there is an embedded Xen below."""

import pytest

from pvxen.machine import DOM0
from pvxen.toolstack import Toolstack
from xenpv import abi
from xenpv.evtchn import EventChannels
from xenpv.hypercall import Hypercalls
from xenpv.pollloop import PollLoop
from xenpv.xenstore.client import Xenstore
from xenpv.xenstore.ring import RingTransport
from xenpv.xenstore.wire import Packet


@pytest.fixture
def xen():
    xen = Toolstack()
    xen.create(1)
    return xen


def introduce(xen, domid, gfn, port):
    """The answer's payload."""
    connection = xen.store.connect(DOM0)
    payload = b"%d\0%d\0%d\0" % (domid, gfn, port)
    connection.receive(Packet(abi.XS_INTRODUCE, 1, 0, payload).encode())
    return connection.take(4096)[16:]


def ring(xen):
    params = xen.domain(1).machine.params
    return params[abi.HVM_PARAM_STORE_PFN], params[abi.HVM_PARAM_STORE_EVTCHN]


def test_with_the_port_it_had_the_ring_works_again(xen):
    assert introduce(xen, 1, *ring(xen)) == b"OK\0"
    with xen.running(1):
        calls = Hypercalls()
        loop = PollLoop(calls, EventChannels(calls))
        store = Xenstore(loop, RingTransport(calls, loop))

        async def name():
            await store.connect()
            return await store.read_text("name")

        assert loop.run(name()) == "guest"


def test_a_domain_that_is_not_there_is_enoent(xen):
    assert introduce(xen, 2, *ring(xen)) == b"ENOENT\0"


def test_a_page_or_port_that_is_not_there_is_einval(xen):
    gfn, port = ring(xen)
    for number in (gfn + 1, 1 << 40, (1 << 64) - 1):
        assert introduce(xen, 1, number, port) == b"EINVAL\0"
    assert introduce(xen, 1, gfn, 99) == b"EINVAL\0"
