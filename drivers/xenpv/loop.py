"""The loop: tasks, signals, deadlines.

Everything that waits, waits here, with a deadline in ns of the loop's clock. There are no threads
and no interrupts. What the loop does when no task can run is its subclass's: pollloop.PollLoop
blocks in Xen; a host's loop may wait for file descriptors.
"""

SECOND = 1000000000


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
        if not self._tasks:
            self._set = True
        while self._tasks:
            # If memory runs out here, it still waits.
            self._tasks[0].wake()
            self._tasks.pop(0)

    def waited_for(self):
        """Whether a task waits for it now."""
        return len(self._tasks) > 0

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
        self._loop._ready.append(self)
        self._pause = None
        del self._loop._sleeping[self]

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
        self._loop._sleep(self, pause.deadline)

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
        self._coro.close()


class Loop:
    """now: a function that gives the time in ns, never less than before."""

    def __init__(self, now):
        self.now = now
        self._ready = []
        self._sleeping = {}
        # No deadline is nearer than this; it may be that of a task that sleeps no more.
        self._nearest = None

    def spawn(self, coro):
        """Run a coroutine beside the others. What it raises ends the loop."""
        task = Task(self, coro)
        self._ready.append(task)
        return task

    async def sleep(self, ns):
        await _Pause(None, self.now() + ns)

    async def gather(self, coros):
        """Run coroutines beside each other until all have ended. Returns a list of their results.

        The first exception of one of them ends the others and is raised.
        """
        ended = Signal()
        faults = []

        async def guard(coro):
            try:
                return await coro
            except Exception as e:
                faults.append(e)
            finally:
                ended.set()

        tasks = [self.spawn(guard(coro)) for coro in coros]
        try:
            while not faults and not all(task.done for task in tasks):
                await ended.wait(None)
        finally:
            for task in tasks:
                task.cancel()
        if faults:
            raise faults[0]
        return [task.result for task in tasks]

    def run(self, coro):
        """Run until the coroutine ends, and end the others with it. Returns what it returns."""
        main = self.spawn(coro)
        try:
            while not main.done:
                self._turn()
                if not self._ready:
                    self._block(self._nearest)
                    self._expire()
                ready, self._ready = self._ready, []
                for task in ready:
                    # A step before may have cancelled it.
                    if not task.done:
                        task.step()
        finally:
            for task in self._ready + list(self._sleeping):
                task.cancel()
            self._ready = []
        return main.result

    def _turn(self):
        """Called once a turn, whether there is work or not."""

    def _block(self, until):
        """Wait until something happens, at most until a time (ns, or None); set its signals."""
        raise NotImplementedError

    def _sleep(self, task, deadline):
        self._sleeping[task] = deadline
        if deadline is not None and (self._nearest is None or deadline < self._nearest):
            self._nearest = deadline

    def _expire(self):
        """Wake the tasks whose deadline has passed."""
        if self._nearest is None or self.now() < self._nearest:
            return
        now = self.now()
        sleeping = list(self._sleeping.items())
        self._nearest = None
        for task, deadline in sleeping:
            if deadline is None:
                continue
            if deadline <= now:
                task.expire()
            elif self._nearest is None or deadline < self._nearest:
                self._nearest = deadline
