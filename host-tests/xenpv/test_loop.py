"""The loop: signals, deadlines in virtual time, dead event bits, the watchdog."""

import pytest

import hw
from pvxen.machine import Machine
from xenpv import abi
from xenpv.evtchn import EventChannels
from xenpv.hypercall import Hypercalls
from xenpv.loop import SECOND, Signal
from xenpv.pollloop import POLL_MAX, WATCHDOG_SECONDS, PollLoop


def new_loop(**options):
    machine = Machine(**options)
    hw.attach(machine)
    xen = Hypercalls()
    return machine, PollLoop(xen, EventChannels(xen))


def test_run_returns_what_the_coroutine_returns():
    _, loop = new_loop()

    async def work():
        await loop.sleep(SECOND)
        return 42

    assert loop.run(work()) == 42


def test_sleeping_takes_virtual_time_and_wakes_in_order_of_deadlines():
    machine, loop = new_loop()
    order = []

    async def nap(seconds):
        await loop.sleep(seconds * SECOND)
        order.append(seconds)

    async def work():
        for seconds in (30, 10, 20):
            loop.spawn(nap(seconds))
        await loop.sleep(31 * SECOND)

    began = machine.clock.now
    loop.run(work())
    assert order == [10, 20, 30]
    assert 31 * SECOND <= machine.clock.now - began < 32 * SECOND


def test_a_signal_set_before_anyone_waits_is_not_lost():
    _, loop = new_loop()
    signal = Signal()

    async def work():
        signal.set()
        before = hw.now()
        await signal.wait(before + 10 * SECOND)
        assert hw.now() - before < SECOND
        await signal.wait(hw.now() + SECOND)
        assert hw.now() - before >= SECOND

    loop.run(work())


def test_a_signal_wakes_all_who_wait():
    _, loop = new_loop()
    signal, woken = Signal(), []

    async def wait(name):
        await signal.wait(None)
        woken.append(name)

    async def work():
        for name in "abc":
            loop.spawn(wait(name))
        await loop.sleep(0)
        signal.set()
        await loop.sleep(0)

    loop.run(work())
    assert sorted(woken) == ["a", "b", "c"]


def test_a_signal_that_runs_out_of_memory_loses_nobody_who_waits():
    _, loop = new_loop()
    signal, woken = Signal(), []

    class Full(list):
        def append(self, task):
            if len(self) == 2:
                raise MemoryError
            super().append(task)

    async def wait(name):
        await signal.wait(None)
        woken.append(name)

    async def work():
        for name in "abcd":
            loop.spawn(wait(name))
        await loop.sleep(0)
        loop._ready = Full()
        with pytest.raises(MemoryError):
            signal.set()
        loop._ready = list(loop._ready)
        await loop.sleep(0)
        assert woken == ["a", "b"]
        signal.set()
        await loop.sleep(0)

    loop.run(work())
    assert woken == ["a", "b", "c", "d"]


@pytest.mark.parametrize("events", ["2l", "dead"])
def test_an_event_wakes_its_port_even_where_the_pending_bits_are_dead(events):
    machine, loop = new_loop(events=events)
    assert loop.shows_events == (events == "2l")
    port = loop.evtchn.alloc_unbound(0)
    peer = machine.evtchn.bind_interdomain(0, machine.domid, port)
    state = {"ready": False}

    def act():
        state["ready"] = True
        machine.evtchn.send(0, peer)

    machine.clock.at(machine.clock.now + SECOND, act)

    async def work():
        began = hw.now()
        while not state["ready"]:
            await loop.port(port).wait(began + 10 * SECOND)
        return hw.now() - began

    assert SECOND <= loop.run(work()) < SECOND + POLL_MAX


def test_a_lost_event_costs_one_poll_and_not_the_deadline():
    machine, loop = new_loop()
    port = loop.evtchn.alloc_unbound(0)
    state = {"ready": False}
    machine.clock.at(machine.clock.now + SECOND, lambda: state.update(ready=True))

    async def work():
        began = hw.now()
        while not state["ready"]:
            await loop.port(port).wait(began + 60 * SECOND)
        return hw.now() - began

    assert loop.run(work()) <= SECOND + 2 * POLL_MAX


def test_the_watchdog_is_fed_all_the_while():
    machine, loop = new_loop()

    async def work():
        await loop.sleep(10 * WATCHDOG_SECONDS * SECOND)

    loop.run(work())
    assert machine.shutdown_reason is None


def test_a_loop_that_stands_still_is_ended_by_the_watchdog():
    machine, loop = new_loop()

    async def work():
        while True:
            loop.xen.call("poll", abi.HYPERVISOR_sched_op, abi.SCHEDOP_yield, "<I", 0)
            machine.clock.advance(machine.clock.now + SECOND)

    with pytest.raises(BaseException, match="reason 4"):
        loop.run(work())
    assert machine.shutdown_reason == abi.SHUTDOWN_watchdog


def test_a_cancelled_task_runs_its_finally_and_nothing_more():
    _, loop = new_loop()
    ended = []

    async def forever():
        try:
            await Signal().wait(None)
            ended.append("went on")
        finally:
            ended.append("finally")

    async def work():
        task = loop.spawn(forever())
        await loop.sleep(0)
        task.cancel()
        await loop.sleep(SECOND)

    loop.run(work())
    assert ended == ["finally"]


def test_what_a_task_raises_ends_the_loop():
    _, loop = new_loop()

    async def broken():
        raise KeyError("bug")

    async def work():
        loop.spawn(broken())
        await loop.sleep(SECOND)

    with pytest.raises(KeyError):
        loop.run(work())


class TestGather:
    def test_it_gives_all_results_in_the_order_asked_for(self):
        _, loop = new_loop()

        async def nap(seconds):
            await loop.sleep(seconds * SECOND)
            return seconds

        assert loop.run(loop.gather([nap(3), nap(1), nap(2)])) == [3, 1, 2]

    def test_the_first_exception_ends_the_others_and_is_raised(self):
        _, loop = new_loop()
        ended = []

        async def nap(seconds):
            try:
                await loop.sleep(seconds * SECOND)
                ended.append(seconds)
            finally:
                ended.append("out")

        async def fail():
            await loop.sleep(2 * SECOND)
            raise KeyError

        async def work():
            with pytest.raises(KeyError):
                await loop.gather([nap(1), fail(), nap(3)])

        loop.run(work())
        assert ended == [1, "out", "out"]

    def test_cancelling_who_gathers_ends_the_gathered(self):
        _, loop = new_loop()
        ended = []

        async def nap():
            try:
                await loop.sleep(100 * SECOND)
            finally:
                ended.append("out")

        async def work():
            task = loop.spawn(loop.gather([nap(), nap()]))
            await loop.sleep(SECOND)
            task.cancel()
            await loop.sleep(0)
            await loop.sleep(0)
            assert ended == ["out", "out"]

        loop.run(work())


def test_a_task_cancelled_by_a_neighbour_of_the_same_turn_does_not_run():
    _, loop = new_loop()
    ran = []

    async def victim():
        ran.append("victim")

    async def work():
        task = loop.spawn(killer())
        victims.append(loop.spawn(victim()))
        await loop.sleep(SECOND)
        assert task.done

    async def killer():
        victims[0].cancel()

    victims = []
    loop.run(work())
    assert ran == []
