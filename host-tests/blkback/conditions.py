"""The conditions that a backend's process works under: memory, events, a sudden end.

Used by worlds. A process is the backend of pvdump.blkback on the embedded Xen, with the conditions
at its ports. The rule: they only make a call fail, or an event late, lost or doubled; they make
nothing up.
"""

from pvdump.blkback.ports import Stalled, Wait
from pvxen import blkback
from pvxen.blkback import BackendStore, BlkBack
from pvxen.machine import DOM0


class Killed(BaseException):
    """The process is killed in the middle of an I/O."""


class Conditions:
    """What is wrong at present.

    withheld: keys that the backend does not write; lowered: smaller values of those that it writes;
    no_memory: nothing can be mapped; events: by whether the end is domain 0's, what happens to a
    share of its events, (lost, late or doubled; the share).
    """

    def __init__(self, clock, draw):
        self.clock = clock
        self.draw = draw
        self.withheld = ()
        self.lowered = {}
        self.clear()

    def clear(self):
        self.no_memory = False
        self.events = {}

    def event(self, channels, port):
        """An event is on its way to a port."""

        def deliver():
            if channels.ports.get((port.domid, port.number)) is port:
                channels.deliver(port)

        kind, share = self.events.get(port.domid == DOM0, ("", 0.0))
        if self.draw.random() >= share:
            deliver()
        elif kind != "lost":
            self.clock.after(self.draw.randrange(50_000_000), deliver)
            if kind == "doubled":
                deliver()


class Withholding(BackendStore):
    """The store of a backend that offers less."""

    def __init__(self, store, conditions):
        super().__init__(store)
        self._conditions = conditions

    def read(self, path):
        # What it does not offer it does not do.
        is_withheld = path.rpartition("/")[2] in self._conditions.withheld
        return None if is_withheld else super().read(path)

    def update(self, device, values):
        conditions, kept = self._conditions, {}
        for path, value in values.items():
            key = path.rpartition("/")[2]
            if key not in conditions.withheld:
                kept[path] = conditions.lowered.get(key, value)
        return super().update(device, kept)


class Grants:
    """A guest's grants; nothing can be mapped while there is no memory."""

    def __init__(self, grants, conditions):
        self._grants = grants
        self._conditions = conditions
        self.close = grants.close

    def map(self, refs, writable):
        if self._conditions.no_memory:
            raise Stalled("no memory to map anything")
        return self._grants.map(refs, writable)


class Mortal:
    """A worker whose process may be killed in an I/O."""

    def __init__(self, worker, process):
        self._worker = worker
        self._process = process

    def __setattr__(self, name, value):
        super().__setattr__(name, value)
        if name == "wake":
            self._worker.wake = value

    def step(self):
        try:
            return self._worker.step()
        except Killed:
            self._process.die()
            return Wait.END


class Flights(blkback.Flights):
    """Transfers of a process that may be killed in an I/O."""

    at_work = 0

    def begin(self, transfers):
        self.at_work += len(transfers)
        return super().begin(transfers)

    def close(self):
        assert not self.at_work, "the memory of an I/O that is under way is let go"

    def _end(self, transfer):
        self.at_work -= 1
        try:
            super()._end(transfer)
        except Killed:
            self._back.die()


class Process(BlkBack):
    """A backend's process under conditions."""

    def __init__(self, xen, conditions):
        super().__init__(xen)
        self.conditions = conditions
        self.store = Withholding(xen.store, conditions)

    def queue(self, direct, channel):
        return Flights(self, channel)

    def grants(self, domid):
        return Grants(super().grants(domid), self.conditions)

    def bind(self, domid, port):
        channel = super().bind(domid, port)
        channels = self.xen.evtchn
        for key in ((DOM0, channel.port), (domid, port)):
            end = channels.ports[key]
            end.intercept = lambda end=end: self.conditions.event(channels, end)
        return channel

    def run(self, worker, channel):
        super().run(Mortal(worker, self), channel)
