"""Every state that a backend can jump to, at every moment of the front end's.

This is docs/block.md's table of states. The backend stands still from that moment on, its state
being what the test says. Whatever it is, the front end does not wait for ever, says what it saw,
takes everything back, and a backend that comes to its senses is connected by the next one.
"""

import pytest

import hw
from pvdump.xen.guest import Guest
from pvdump.xen.sink import Memory
from xenpv import abi
from xenpv.blkfront import BlkFront
from xenpv.errors import XenError
from xenpv.evtchn import EventChannels
from xenpv.gnttab import GrantTable
from xenpv.hypercall import Hypercalls
from xenpv.loop import SECOND
from xenpv.schedpoll import PollLoop
from xenpv.xenbus import STATE_NAMES, Device
from xenpv.xenstore import Xenstore
from xenpv.xs_ring import RingTransport

UNKNOWN, INITIALISING, INIT_WAIT, INITIALISED, CONNECTED, CLOSING, CLOSED, _, _ = range(9)
ABSENT, NONSENSE = -1, 99
STATES = [*range(9), ABSENT, NONSENSE]
DONE = ""  # nothing is told
LIMIT = 200 * SECOND
GONE = (UNKNOWN, ABSENT, NONSENSE)


def seen(state):
    return "Unknown" if state in GONE else STATE_NAMES[state]


def starting(state):
    """Ours is Initialising, and nothing was done yet."""
    if state in (INIT_WAIT, INITIALISED):
        return DONE
    if state in (CONNECTED, CLOSING):
        return f"taking over from the earlier kernel: .* is {seen(state)} after 60 s"
    seconds = 60 if state == CLOSED else 5
    return f"starting: .* is {seen(state)} after {seconds} s, InitWait or Initialised expected"


def connecting(state):
    """Ours is Initialised."""
    if state == CONNECTED:
        return "backend's sectors is ''; a number"  # it did not say what the disk is
    if state in (CLOSING, CLOSED):
        return f"went {seen(state)} instead of Connected"
    return f"connecting: .* is {seen(state)} after 5 s, Connected or Closing or Closed expected"


def streaming(state):
    """Ours is Connected, requests are in flight, and none is answered any more."""
    if state == CONNECTED:
        return "no request completed for 30 s"
    return f"left Connected, its state is {seen(state)}; it was not back within 60 s"


def closing(state):
    """Ours is Closing."""
    if state == CLOSED or state in GONE:
        return DONE
    if state == CLOSING:
        return "closing: .* is Closing after 5 s, Closed or Unknown expected"
    return f"closing: .* is {seen(state)} after 5 s, Closing or Closed or Unknown expected"


def closed(state):
    """Ours is Closed."""
    if state == CLOSED or state in GONE:
        return DONE
    return f"closing: .* is {seen(state)} after 5 s, Closed or Unknown expected"


MOMENTS = {starting: None, connecting: 3, streaming: None, closing: 5, closed: 6}


class Jumping:
    """A guest with a disk whose backend can be made to stand still in any state."""

    def __init__(self):
        self.guest = Guest()
        self.back = self.guest.disk("xvdb", Memory(1 << 20))
        self.guest.settle()
        self.store = self.guest.store
        self.front = f"{self.back.front}/state"
        self.step = self.back.step
        self.ports = len(list(self.guest.machine.evtchn.of(1)))

    def jump(self, state):
        """Stand still in a state."""
        self.back.step = lambda: True
        node = f"{self.back.path}/state"
        if state == ABSENT:
            self.store.rm(node)
        else:
            self.store.write(node, "x" if state == NONSENSE else state)

    def jump_when(self, ours, state):
        """Stand still as soon as the front end's state is `ours`."""

        def look():
            if self.store.read(self.front, "") == str(ours):
                self.store.unwatch(self.front, look)
                self.jump(state)

        self.store.watch(self.front, look)

    def thaw(self):
        """Go on from the state that it was in."""
        self.back.step = self.step
        self.back.faults.never_answers = None
        self.store.write(f"{self.back.path}/state", self.back.state)
        self.back._look()
        self.guest.settle()

    def run(self, prepare=None):
        """Connect, write and close. Returns the message of what went wrong first."""
        machine = self.guest.machine
        machine.kexec()
        xen = Hypercalls()
        loop = PollLoop(xen, EventChannels(xen))
        store = Xenstore(loop, RingTransport(xen, loop))
        grants = GrantTable(xen)
        before = grants.free()
        began = hw.now()

        async def main():
            await store.connect()
            device = Device(store, loop, "device/vbd/51728")
            await device.find()
            disk = BlkFront(loop, grants, device)
            said = []
            try:
                await disk.connect()
                if prepare is not None:
                    prepare()
                await disk.write(0, 0x200, 300)
                await disk.flush()
            except XenError as e:
                said.append(str(e))
            try:
                if disk.connected():
                    await disk.close()
            except XenError as e:
                said.append(str(e))
            assert not disk.connected()
            await store.close()
            return said[0] if said else DONE

        message = loop.run(main())
        assert hw.now() - began < LIMIT
        # Whatever the backend has not let go is set aside; growing adds entries.
        assert grants.free() + grants.set_aside >= before
        return message


def matches(message, expected):
    """pytest.raises' way to compare, of a message."""
    if expected == DONE:
        assert message == DONE
        return
    with pytest.raises(XenError, match=expected):
        raise XenError(message)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_a_jump_ends_as_the_table_says_and_in_time(moment, state):
    disk = Jumping()
    expected = moment(state)
    if moment is starting:
        disk.jump(state)
        if expected == DONE:
            # From the moment on at which it is asked to connect it does so.
            watch = lambda: disk.store.read(disk.front, "") == "3" and disk.thaw()  # noqa: E731
            disk.store.watch(disk.front, watch)
        matches(disk.run(), expected)
    elif moment is streaming:
        disk.back.faults.never_answers = 0
        matches(disk.run(lambda: disk.jump(state)), expected)
    else:
        disk.jump_when(MOMENTS[moment], state)
        matches(disk.run(), expected)


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: moment.__name__)
def test_once_the_backend_is_itself_again_the_next_front_end_connects(moment, state):
    disk = Jumping()
    if MOMENTS[moment]:
        disk.jump_when(MOMENTS[moment], state)
        disk.run()
    elif moment is streaming:
        disk.back.faults.never_answers = 0
        disk.run(lambda: disk.jump(state))
    else:
        disk.jump(state)
        disk.run()
    disk.thaw()
    disk.back.sink.data[:512] = bytes(512)
    hw.mem(0x200000, 512)[:] = b"next" * 128
    assert disk.run() == DONE
    assert disk.back.sink.data[:512] == b"next" * 128
    assert disk.guest.machine.gnttab.mappings == []
    assert len(list(disk.guest.machine.evtchn.of(1))) == disk.ports
    assert int(disk.store.read(disk.front)) == abi.XenbusStateInitialising
