"""The bound of each wait of the block front end: connecting, away, closing."""

import pytest
from fixtures.onedisk import OneDisk, assert_writes

import hw
from pvxen.faults import Faults
from xenpv.abi import XenbusStateClosing
from xenpv.block.supervise import AWAY, CLOSE_TIMEOUT, CONNECT_TIMEOUT, UNDO_TIMEOUT
from xenpv.errors import BackendError, Timeout
from xenpv.loop import SECOND
from xenpv.xenbus import Refused


class Hang(BaseException):
    """It took much longer than it may."""


def hang():
    raise Hang


def later(bench, seconds, do):
    bench.guest.machine.clock.after(seconds * SECOND, do)


def recover(bench):
    """Make the backend one without faults, and have it look at its front end."""
    bench.back.faults = Faults(plain=True)
    bench.back._look()


def took(bench, error, message, work=None):
    """Run until an error. Returns how many ns that took."""
    began = hw.now()
    with pytest.raises(error, match=message):
        bench.run(work)
    return hw.now() - began


# Connecting.


@pytest.mark.parametrize("seconds", [6, 60, 290])
def test_a_backend_may_take_as_long_to_connect_as_linux_waits_for_it(seconds):
    bench = OneDisk(never_connects=True)
    later(bench, seconds, lambda: recover(bench))
    assert_writes(bench)


@pytest.mark.parametrize("seconds", [6, 60, 290])
def test_a_backend_may_take_as_long_to_come_up(seconds):
    bench = OneDisk()
    bench.guest.xen.blkback.close(bench.back)
    bench.guest.store.rm(bench.back.path)

    def attach():
        bench.back = bench.guest.disk("xvdb", bench.sink, plain=True)

    later(bench, seconds, attach)
    assert_writes(bench)


@pytest.mark.parametrize("seconds", [6, 60, 290])
def test_a_backend_may_take_as_long_to_close_the_crashed_kernel_s_connection(seconds):
    bench = OneDisk(stuck_closing=True)
    bench.crashed.connect(bench.back)
    later(bench, seconds, lambda: recover(bench))
    assert_writes(bench)


def test_a_backend_that_never_connects_is_given_up_then():
    bench = OneDisk(never_connects=True)
    passed = took(bench, Timeout, "connecting: .* is InitWait after 300 s, Connected or Closing")
    assert CONNECT_TIMEOUT <= passed < CONNECT_TIMEOUT + SECOND


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"no_init_wait": True}, "starting: .* is Closed after 300 s, InitWait or"),
        ({"stuck_closing": True}, "taking over .* is Closing after 300 s, Closed or"),
        ({"ignores_closing": True}, "taking over .* is Connected after 300 s, Closing or"),
    ],
)
def test_a_take_over_takes_no_longer_with_all_its_steps(faults, message):
    bench = OneDisk(**faults)
    bench.crashed.connect(bench.back)
    passed = took(bench, Timeout, message)
    assert CONNECT_TIMEOUT <= passed < CONNECT_TIMEOUT + SECOND


def test_unanswered_requests_of_the_crashed_kernel_count_as_well():
    bench = OneDisk(never_answers=0, stuck_closing=True)
    bench.crashed.connect(bench.back)
    bench.crashed.write_in_flight(bench.back, 8, bytes(512))
    passed = took(bench, Timeout, "taking over .* is Closing after 240 s")
    assert CONNECT_TIMEOUT <= passed < CONNECT_TIMEOUT + SECOND


def test_a_backend_that_refuses_while_the_crashed_kernel_s_requests_end_is_asked_again():
    bench = OneDisk(lingers=285 * SECOND)
    bench.crashed.connect(bench.back)
    assert_writes(bench)
    assert bench.back.fatal.endswith("pending I/O")


def test_a_backend_that_refuses_for_good_is_given_up_after_the_same_time():
    bench = OneDisk(lingers=3600 * SECOND)
    bench.crashed.connect(bench.back)
    passed = took(bench, Refused, "went Closing instead of Connected")
    assert CONNECT_TIMEOUT <= passed < CONNECT_TIMEOUT + SECOND


def test_a_backend_that_refuses_a_fresh_disk_is_not_asked_again():
    bench = OneDisk(lingers=3600 * SECOND)
    bench.back._busy_until = 3600 * SECOND
    assert took(bench, Refused, "went Closing instead of Connected") < SECOND


# Away.


class DiesAgain(Faults):
    """The backend ends the connection at each request."""

    def strikes(self, name, number):
        return name == "dies"


def gone(bench):
    bench.guest.store.rm(bench.back.path)


def dead(bench):
    """The backend's program ends, and leaves its state at Closing."""
    bench.guest.xen.blkback.close(bench.back)
    bench.guest.store.write(f"{bench.back.path}/state", XenbusStateClosing)


def late(bench):
    """The backend is gone for 50 s, and does not connect when it is back."""
    gone(bench)
    later(bench, 50, lambda: bench.guest.disk("xvdb", bench.sink, never_connects=True))


def refuses(bench):
    """The backend refuses for 50 s, and then does not connect."""
    bench.back._busy_until = hw.now() + 50 * SECOND
    later(bench, 50, lambda: fail(bench, never_connects=True))


AFTERWARDS = {
    "is gone": gone,
    "stays Closed": lambda bench: fail(bench, no_init_wait=True),
    "stays Closing": dead,
    "is back late and never connects": late,
    "refuses and then never connects": refuses,
    "never connects": lambda bench: fail(bench, never_connects=True),
    "refuses": lambda bench: setattr(bench.back, "_busy_until", 3600 * SECOND),
    "leaves again and again": lambda bench: setattr(bench.back, "faults", DiesAgain(plain=True)),
}


def fail(bench, **faults):
    bench.back.faults = Faults(plain=True, **faults)


@pytest.mark.parametrize("what", AFTERWARDS)
def test_a_backend_that_is_away_is_waited_for_for_one_minute(what):
    bench = OneDisk(dies=1)
    left = []

    def say(line):
        if "the backend left Connected" in line and not left:
            left.append(hw.now())
            AFTERWARDS[what](bench)

    async def work(disk):
        await disk.write(0, 0x200, 80 * 8)
        await disk.drain()

    later(bench, 600, hang)
    with pytest.raises(BackendError, match=r"was not back within 60 s: |answered nothing for 60 s"):
        bench.run(work, say=say)
    passed = hw.now() - left[0]
    assert AWAY <= passed < AWAY + 2 * SECOND


def test_a_backend_that_answers_before_it_leaves_again_has_a_minute_each_time():
    bench = OneDisk(dies=1)
    left = []

    def say(line):
        if "the backend left Connected" in line:
            left.append(hw.now())
            bench.guest.store.rm(bench.back.path)
            later(bench, 45, lambda: attach(len(left)))

    def attach(times):
        bench.back = bench.guest.disk("xvdb", bench.sink, plain=True, **DIES[times])

    DIES = {1: {"dies": 1}, 2: {"dies": 1}, 3: {}}
    gfn, data = bench.frames(80)

    async def work(disk):
        await disk.write(0, gfn, 80 * 8)
        await disk.flush()

    bench.run(work, say=say)
    assert len(left) == 3
    assert bench.sink.data[: len(data)] == data


# Closing.


@pytest.mark.parametrize(
    ("fault", "state"), [("stuck_closing", "Closing"), ("ignores_closing", "Connected")]
)
def test_a_backend_may_take_half_a_minute_to_close(fault, state):
    bench = OneDisk(**{fault: True})

    async def work(disk):
        await disk.close()

    passed = took(bench, Timeout, f"closing: .* is {state} after 30 s", work)
    assert CLOSE_TIMEOUT <= passed < CLOSE_TIMEOUT + SECOND


def test_closing_a_disk_that_could_not_be_connected_takes_five_seconds_more():
    bench = OneDisk(never_connects=True, ignores_closing=True)
    passed = took(bench, Timeout, "connecting: ")
    limit = CONNECT_TIMEOUT + UNDO_TIMEOUT
    assert limit <= passed < limit + SECOND
    assert bench.grants.free() == 2 * 512
