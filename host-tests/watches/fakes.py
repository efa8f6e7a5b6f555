"""A store in this process, a clock that stands still, and handlers that wait to be let go.

Nothing here waits for time: a test waits for what must happen, and only for that.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable
from typing import ClassVar

from pvdump.watches.dispatcher import Dispatcher
from pvdump.watches.queue import DomainIdentity, Event
from pvdump.watches.workers import Worker
from xenpv.errors import XenstoreError

Tell = Callable[[str, str], None]


class FakeStore:
    """Nodes in a dict; fire() is what the store's thread does when an event comes."""

    def __init__(self) -> None:
        self.nodes: dict[str, bytes] = {}
        self.hidden: set[str] = set()  # nodes that may not be read
        self.watches: dict[str, list[Tell]] = {}

    def watch(self, path: str, tell: Tell) -> FakeHandle:
        self.watches.setdefault(path, []).append(tell)
        return FakeHandle(self, path, tell)

    def fire(self, path: str, base: str | None = None) -> None:
        """An event of path, to those who watch base (default: path itself)."""
        for tell in list(self.watches.get(base or path, [])):
            tell(path, "token")

    def find(self, path: str) -> bytes | None:
        if path in self.hidden:
            raise XenstoreError(f"read {path}", "EACCES")
        return self.nodes.get(path)

    def directory(self, path: str, default: list[str] | None = None) -> list[str]:
        below = [p[len(path) + 1 :].split("/")[0] for p in self.nodes if p.startswith(path + "/")]
        if not below and path not in self.nodes:
            if default is not None:
                return default
            raise XenstoreError(f"directory {path}", "ENOENT")
        return list(dict.fromkeys(below))

    def create(self, domid: int, vm: str = "/vm/a") -> None:
        self.nodes[f"/local/domain/{domid}/vm"] = vm.encode()
        self.fire("@introduceDomain")

    def destroy(self, domid: int) -> None:
        base = f"/local/domain/{domid}/"
        self.nodes = {p: v for p, v in self.nodes.items() if not p.startswith(base)}
        self.fire("@releaseDomain")


class FakeHandle:
    def __init__(self, store: FakeStore, path: str, tell: Tell) -> None:
        self.store, self.path, self.tell = store, path, tell

    def close(self) -> None:
        self.store.watches[self.path].remove(self.tell)


class Clock:
    def __init__(self) -> None:
        self.now = 0

    def __call__(self) -> int:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += int(seconds * 1e9)


class Handler:
    """Says which event it was called with, then waits until the test lets it go."""

    def __init__(self) -> None:
        self.calls: queue.SimpleQueue[Call] = queue.SimpleQueue()

    def __call__(self, event: Event) -> None:
        call = Call(event)
        self.calls.put(call)
        call.stay()

    def called(self) -> Call:
        """The next call; waits for it."""
        return self.calls.get()

    def idle(self) -> bool:
        return self.calls.empty()


class Call:
    """A handler that is inside. free(): at the end of a test, however it ended."""

    inside: ClassVar[set[Call]] = set()
    freed: ClassVar[bool] = False
    lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, event: Event) -> None:
        self.event = event
        self.thread = threading.current_thread()
        self.work: Callable[[], object] | None = None
        self._gate = threading.Semaphore(0)

    def stay(self) -> None:
        """Wait in the handler until go()."""
        with Call.lock:
            if Call.freed:
                return
            Call.inside.add(self)
        self._gate.acquire()
        with Call.lock:
            Call.inside.discard(self)
        if self.work:
            self.work()

    def go(self, work: Callable[[], object] | None = None) -> None:
        """Let the handler end, after doing some work."""
        self.work = work
        self._gate.release()

    @classmethod
    def free(cls, dispatchers: Iterable[Dispatcher]) -> None:
        """Close dispatchers, also while handlers run."""
        with cls.lock:
            cls.freed = True
            for call in cls.inside:
                call._gate.release()
        for dispatcher in dispatchers:
            dispatcher.close()
        cls.freed = False


def domain_of(path: str, token: str) -> int | None:
    """/data/7/... is domain 7's, everything else no domain's."""
    parts = path.split("/")
    return int(parts[2]) if len(parts) > 2 and parts[1] == "data" else None


class Followed:
    """What a follower was told, as ("appeared" or "vanished", domid, generation)."""

    def __init__(self) -> None:
        self.told: queue.SimpleQueue[tuple[str, int, int]] = queue.SimpleQueue()

    def appeared(self, domain: DomainIdentity) -> None:
        self.told.put(("appeared", *domain))

    def vanished(self, domain: DomainIdentity) -> None:
        self.told.put(("vanished", *domain))

    def next(self) -> tuple[str, int, int]:
        return self.told.get()


def workers() -> set[threading.Thread]:
    """The workers that there are."""
    return {thread for thread in threading.enumerate() if isinstance(thread, Worker)}
