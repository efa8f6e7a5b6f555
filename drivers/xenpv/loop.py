"""The loop: tasks, signals, deadlines, and one SCHEDOP_poll when nothing can run.

Everything that waits, waits here, with a deadline in ns of Xen system time. An event is a hint:
who waits for a port looks at its ring again, whether the event came, was lost or was another's.
There are no interrupts and no threads. The loop feeds the watchdog, so a loop that stands still
ends the domain.
Source: xen/include/public/sched.h; xen/common/sched/core.c (do_poll).
"""

import hw

SECOND = 1000000000
# A poll is never longer, so that a lost event costs this much and the watchdog is fed.
POLL_MAX = SECOND // 4
# The poll of a domain whose event bits are dead.
POLL_DEAF = SECOND // 1000
WATCHDOG_SECONDS = 30


class _Pause:
    """What a task yields: the signal it waits on (or None) and its deadline (or None)."""

    def __init__(self, signal, deadline):
        self.signal = signal
        self.deadline = deadline
        self._first = True

    def __iter__(self):
        return self

    __await__ = __iter__

    def __next__(self):
        if self._first:
            self._first = False
            return self
        raise StopIteration


class Signal:
    """Something that can happen; tasks wait for it. Setting it wakes all of them."""

    def __init__(self):
        self._set = False
        self._tasks = []

    def set(self):
        if self._tasks:
            for task in self._tasks:
                task.wake()
            self._tasks = []
        else:
            self._set = True

    async def wait(self, deadline):
        """Until the signal is set or the deadline (ns, or None) has passed; which one, look."""
        if self._set:
            self._set = False
            return
        await _Pause(self, deadline)


class Task:
    """A coroutine in the loop."""

    def __init__(self, loop, coro):
        self._loop = loop
        self._coro = coro
        self._pause = None
        self.done = False
        self.result = None

    def wake(self):
        self._pause = None
        self._loop._sleeping.remove(self)
        self._loop._ready.append(self)

    def step(self):
        try:
            pause = self._coro.send(None)
        except StopIteration as stop:
            self.done = True
            self.result = stop.value
            return
        self._pause = pause
        if pause.signal is not None:
            pause.signal._tasks.append(self)
        self._loop._sleeping.append(self)

    def deadline(self):
        return self._pause.deadline

    def expire(self):
        """Wake the task because its deadline has passed."""
        signal = self._pause.signal
        if signal is not None:
            signal._tasks.remove(self)
        self.wake()

    def cancel(self):
        """End the task where it waits; its finally blocks run."""
        if self.done:
            return
        self.done = True
        if self in self._loop._sleeping:
            self.expire()
        if self in self._loop._ready:
            self._loop._ready.remove(self)
        self._coro.close()


class Loop:
    """evtchn: EventChannels."""

    def __init__(self, xen, evtchn):
        self.xen = xen
        self.evtchn = evtchn
        self._ready = []
        self._sleeping = []
        self._ports = {}
        self._ports_page = hw.alloc_pages(1)
        self._fed = None
        self.deaf = not evtchn.heard()

    def port(self, port):
        """The signal of an event channel port of ours."""
        if port not in self._ports:
            self._ports[port] = Signal()
        return self._ports[port]

    def forget(self, port):
        """The port is closed: do not poll it any more."""
        self._ports.pop(port, None)

    def spawn(self, coro):
        """Run a coroutine beside the others. What it raises ends the loop."""
        task = Task(self, coro)
        self._ready.append(task)
        return task

    async def sleep(self, ns):
        await _Pause(None, hw.now() + ns)

    def run(self, coro):
        """Run until the coroutine ends, and end the others with it. Returns what it returns."""
        main = self.spawn(coro)
        try:
            while not main.done:
                self._feed()
                if not self._ready:
                    self._poll()
                for task in list(self._ready):
                    # A step before may have cancelled it.
                    if task in self._ready:
                        self._ready.remove(task)
                        task.step()
        finally:
            for task in self._ready + self._sleeping:
                task.cancel()
        return main.result

    def _feed(self):
        now = hw.now()
        if self._fed is None or now - self._fed > SECOND:
            self._fed = now
            hw.watchdog(WATCHDOG_SECONDS)

    def _poll(self):
        now = hw.now()
        until = now + (POLL_DEAF if self.deaf else POLL_MAX)
        for task in self._sleeping:
            deadline = task.deadline()
            if deadline is not None and deadline < until:
                until = deadline
        ports = [port for port, signal in self._ports.items() if signal._tasks]
        if until > now:
            self._sleep(ports, until)
        self._wake(ports, until)

    def _sleep(self, ports, until):
        """Block in Xen until one of the ports has an event, or Xen time `until`."""
        listed = [] if self.deaf else ports
        for i, port in enumerate(listed):
            hw.wr32(self._ports_page + 4 * i, port)
        self.xen.poll(self._ports_page, len(listed), until)

    def _wake(self, ports, until):
        heard = [port for port in ports if self.evtchn.take(port)]
        now = hw.now()
        # Nothing heard although the time is over: events may be lost, so everyone looks.
        for port in heard if heard or now < until else ports:
            self._ports[port].set()
        for task in list(self._sleeping):
            deadline = task.deadline()
            if deadline is not None and deadline <= now:
                task.expire()
