"""The loop: tasks, signals, deadlines, cancellation.

Everything that waits, waits here, with a deadline in ns of the loop's clock. There are no threads
and no interrupts. A subclass says how to wait when no task can run: pollloop.PollLoop blocks in
Xen; a host's loop waits for file descriptors.

Rules, after trio's: a cancelled task gets Cancelled raised at the await where it stands, and runs
on until it has ended, so that its `finally` blocks may wait; such a wait needs a deadline. No error
of a task is lost: gather() raises the first one of its tasks, and that of a task made by spawn() is
raised in the coroutine that run() was given, at its await, for it to handle or to end with.
"""

SECOND = 1000000000


class Cancelled(BaseException):
    """Raised in a task that is cancelled, at its await. Let it pass; clean up in `finally`."""


class _Pause:
    """The value that a waiting task yields: its signal or None, and its deadline or None."""

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
    """An event that tasks wait for. Setting it wakes all of them."""

    def __init__(self):
        self._set = False
        self._tasks = []

    def set(self):
        """Wake the tasks that wait, or, if there are none, the next one that comes to wait."""
        if not self._tasks:
            self._set = True
        while self._tasks:
            # If memory runs out here, the task still waits.
            self._tasks[0].wake()
            self._tasks.pop(0)

    def waited_for(self):
        """Return whether a task waits for it now."""
        return len(self._tasks) > 0

    async def wait(self, deadline):
        """Wait until the signal is set or the deadline (ns, or None) has passed.

        It does not tell which of the two happened: the caller looks at what it waits for.
        """
        if self._set:
            self._set = False
            return
        await _Pause(self, deadline)


class Group:
    """The tasks of one gather(): how many have not ended, and the errors of those that have."""

    def __init__(self):
        self.left = 0
        self.errors = []
        self.ended = Signal()


class Task:
    """A coroutine in the loop. Made by Loop.spawn() and Loop.gather().

    done: whether it has ended; result: what it returned; error: the exception it ended with.
    """

    def __init__(self, loop, coro, group):
        self._loop = loop
        self._coro = coro
        self._group = group
        self._pause = None
        # Raised at its next step; it is interrupted only once, so that it can clean up.
        self._raise = None
        self._interrupted = False
        self.done = False
        self.result = None
        self.error = None

    def wake(self):
        """Make it ready. Its signal, if it waits on one, forgets it by itself."""
        self._loop._ready.append(self)
        self._pause = None
        del self._loop._sleeping[self]

    def expire(self):
        """Wake it although its signal was not set."""
        signal = self._pause.signal
        if signal is not None:
            signal._tasks.remove(self)
        self.wake()

    def step(self):
        """Run it until its next wait or its end. Raises what is no Exception, such as an exit."""
        error = self._raise
        try:
            if error is None:
                pause = self._coro.send(None)
            else:
                self._raise = None
                pause = self._coro.throw(error)
        except StopIteration as stop:
            self._end(stop.value, None)
            return
        except Cancelled:
            self._end(None, None)
            return
        except Exception as e:
            self._end(None, e)
            return
        if self._raise is not None:
            # It was interrupted by itself, or by what it called.
            self._loop._ready.append(self)
            return
        self._pause = pause
        if pause.signal is not None:
            pause.signal._tasks.append(self)
        self._loop._sleep(self, pause.deadline)

    def _end(self, result, error):
        self.done = True
        self.result = result
        self.error = error
        group = self._group
        if group is not None:
            group.left -= 1
            if error is not None:
                group.errors.append(error)
            group.ended.set()
        elif error is not None:
            self._loop._failed(self, error)

    def cancel(self):
        """Have Cancelled raised where it waits, at the loop's next turn; it runs on to its end.

        A task that has not begun never does. Without effect on one that was cancelled before.
        """
        self.interrupt(Cancelled())

    def interrupt(self, error):
        """Have an error raised where it waits, if it has not been interrupted before."""
        if self.done or self._interrupted:
            return
        if self in self._loop._sleeping:
            self.expire()
        self._raise = error
        self._interrupted = True

    def close(self):
        """End it now, for a loop that cannot go on: a `finally` that waits is left there."""
        self.done = True
        try:
            self._coro.close()
        except BaseException:
            # The error that ended the loop is the one to be raised.
            pass


class Loop:
    """The tasks of one thread, and the time. Base of the loops that know how to wait.

    Args:
        now: a function that returns the time in ns, never less than before.
    """

    def __init__(self, now):
        self.now = now
        self._ready = []
        self._sleeping = {}
        # No deadline is nearer than this; it may be that of a task that sleeps no more.
        self._nearest = None
        # The task of run()'s coroutine; the first error raised in it, the first that was not.
        self._main = None
        self._told = None
        self._untold = None

    def spawn(self, coro):
        """Run a coroutine beside the others. Returns its Task.

        An error of it is raised in run()'s coroutine.
        """
        task = Task(self, coro, None)
        self._ready.append(task)
        return task

    async def sleep(self, ns):
        """Wait for a time in ns; 0 lets the others have a turn."""
        await _Pause(None, self.now() + ns)

    async def gather(self, coros):
        """Run coroutines beside each other until all have ended. Returns a list of their results.

        The first exception of one cancels the others, and is raised when they have ended.
        """
        group = Group()
        tasks = [Task(self, coro, group) for coro in coros]
        self._ready += tasks
        group.left = len(tasks)
        cancelled = None
        while group.left:
            try:
                await group.ended.wait(None)
            except Cancelled as e:
                cancelled = e
            except Exception as e:
                # Of a task that was made by spawn().
                group.errors.append(e)
            if cancelled is not None or group.errors:
                for task in tasks:
                    task.cancel()
        if group.errors:
            raise group.errors[0]
        if cancelled is not None:
            raise cancelled
        return [task.result for task in tasks]

    def run(self, coro):
        """Run a coroutine to its end, then cancel the tasks that are left and run them to theirs.

        An error of a spawned task is raised in the coroutine, at its await; one that comes after
        that, or after its end, is raised here.

        Returns: what the coroutine returns. Raises: the first error that it did not handle; what is
        no Exception ends the loop at once.
        """
        main = self._main = self.spawn(coro)
        self._told = self._untold = None
        try:
            while not main.done:
                self._take_turn()
            for task in self._ready + list(self._sleeping):
                task.cancel()
            while self._ready or self._sleeping:
                self._take_turn()
        except BaseException:
            self._abandon()
            raise
        if main.error is not None:
            # On the way out from the one it was told of it may have met another.
            raise main.error if self._told is None else self._told
        if self._untold is not None:
            raise self._untold
        return main.result

    def _take_turn(self):
        """Run each task that is ready up to its next wait; wait for one if none is."""
        try:
            self._turn()
            if not self._ready:
                self._block(self._nearest)
                self._expire()
        except Exception as e:
            if self._told is not None or self._main.done:
                raise
            # The loop cannot wait. Its coroutine may still say why.
            self._failed(None, e)
        for _ in range(len(self._ready)):
            # A task may have taken turns itself.
            if self._ready:
                self._ready.pop(0).step()

    def _failed(self, task, error):
        """Keep an error that no gather() raises. task: the one it ended, None for the loop."""
        if task is self._main:
            return
        if self._told is None and not self._main.done:
            self._told = error
            self._main.interrupt(error)
        elif self._untold is None:
            self._untold = error

    def _abandon(self):
        """End all coroutines without running them any further."""
        tasks = self._ready + list(self._sleeping)
        self._ready = []
        self._sleeping = {}
        for task in tasks:
            task.close()

    def _turn(self):
        """Do work of the subclass; called once a turn, whether a task is ready or not."""

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
