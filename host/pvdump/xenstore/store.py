"""The xenstore client for host programs with threads: the drivers' operations as blocking calls.

    with Store(default_path()) as store:
        store.write("/local/domain/0/data/x", "1")
        handle = store.watch("/local/domain", lambda path, token: print(path))

A thread of its own runs the client of xenpv.xenstore on a stream. Any number of threads may ask at
the same time, and their requests are in flight together. The rule: tell() runs in the client's
thread, so it must not wait, and must not call a method of the store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from xenpv.errors import XenError
from xenpv.loop import Signal, Task
from xenpv.xenstore.client import Xenstore
from xenpv.xenstore.watch import Watch

from .selectloop import SelectLoop
from .stream import StreamTransport

log = logging.getLogger(__name__)
Result = TypeVar("Result")
CLOSED = "xenstore: the connection was closed"
EVENTS = 4096  # that a watch holds until tell() has taken them
Tell = Callable[[str, str], object]


class WatchHandle:
    """A watch that Store.watch() set; close() ends it."""

    def __init__(self, store: Store, watch: Watch, tell: Tell) -> None:
        self._store = store
        self._watch = watch
        self._tell = tell
        self._task: Task = store.loop.spawn(self._follow())

    async def _follow(self) -> None:
        seen = 0
        while True:
            try:
                path = await self._watch.next(None)
            except XenError:
                return
            self._say(path)
            if self._watch.dropped != seen:
                # Some were lost: the listener has to look at everything below the watch.
                seen = self._watch.dropped
                self._say(self._watch.path)

    def _say(self, path: str) -> None:
        try:
            self._tell(path, self._watch.token)
        except Exception:
            log.exception("watch %s: the listener failed on %s", self._watch.path, path)

    def close(self) -> None:
        """End the watch; tell() is not called after this returns. Raises XenError."""

        async def end(_: Xenstore) -> None:
            self._task.cancel()
            await self._watch.close()

        self._store.call(end)


class Store:
    """A connection to a xenstore.

    All methods raise XenError when a request fails or the connection has ended.

    Args:
        path: of the store, see stream.py.
        on_end: called once, with the reason, in the client's thread, if the connection ends
            otherwise than by close().

    Raises:
        XenError: there is no server.
    """

    def __init__(
        self, path: Path | str, on_end: Callable[[str], object] = lambda reason: None
    ) -> None:
        self.loop = SelectLoop()
        self._client = Xenstore(self.loop, StreamTransport(self.loop, path))
        self._on_end = on_end
        self._stop = Signal()
        self._stopping = False
        self._ready: Future[None] = Future()
        self._lock = threading.Lock()  # of the next two
        self._pending: set[Future[Any]] = set()
        self._over = False
        self._thread = threading.Thread(target=self._run, name="xenstore", daemon=True)
        self._thread.start()
        self._ready.result()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the connection, after the requests that are in flight."""

        def stop() -> None:
            self._stopping = True
            self._stop.set()

        with self._lock:
            if not self._over:
                self.loop.call(stop)
        self._thread.join()

    def _run(self) -> None:
        failed = None
        try:
            self.loop.run(self._main())
        except BaseException as error:
            log.exception("the client's thread failed")
            failed = f"{type(error).__name__}: {error}"
        with self._lock:
            self._over = True
            left = [future for future in self._pending if not future.done()]
        for future in left:
            future.set_exception(XenError(CLOSED))
        self.loop.close()
        if failed is not None:
            self._on_end(failed)

    async def _main(self) -> None:
        try:
            await self._client.connect()
        except BaseException as error:
            self._ready.set_exception(error)
            return
        self.loop.spawn(self._guard())
        self._ready.set_result(None)
        while not self._stopping:
            await self._stop.wait(None)
        await self._client.close()

    async def _guard(self) -> None:
        reason = await self._client.ended()
        if not self._stopping:
            self._on_end(reason)

    def call(self, work: Callable[[Xenstore], Awaitable[Result]]) -> Result:
        """Run an async function of the client in its thread; return its result, or raise."""
        if threading.current_thread() is self._thread:
            raise RuntimeError("the store's own thread cannot wait for itself")
        future: Future[Result] = Future()

        async def run() -> None:
            try:
                future.set_result(await work(self._client))
            except Exception as error:
                future.set_exception(error)

        with self._lock:
            if self._over:
                raise XenError(CLOSED)
            self._pending.add(future)
            self.loop.call(lambda: self.loop.spawn(run()))
        try:
            return future.result()
        finally:
            with self._lock:
                self._pending.discard(future)

    def read(self, path: str) -> bytes:
        """Return a node's value. Raises XenError."""
        return self.call(lambda client: client.read(path))

    def find(self, path: str) -> bytes | None:
        """Return a node's value, or None if there is no such node."""
        return self.call(lambda client: client.find(path))

    def read_text(self, path: str, default: str | None = None) -> str:
        """Return a node's text, other bytes than printable ASCII shown as "?"."""
        return self.call(lambda client: client.read_text(path, default))

    def read_int(self, path: str, default: int | None = None) -> int:
        """Return a node's decimal number. Raises XenError if it is none."""
        return self.call(lambda client: client.read_int(path, default))

    def write(self, path: str, value: str | bytes) -> None:
        """Write a node and make its absent parents."""
        self.call(lambda client: client.write(path, value))

    def mkdir(self, path: str) -> None:
        """Make a node if it is absent."""
        self.call(lambda client: client.mkdir(path))

    def rm(self, path: str) -> None:
        """Remove a node and all below it."""
        self.call(lambda client: client.rm(path))

    def directory(self, path: str, default: list[str] | None = None) -> list[str]:
        """Return the names of a node's children, or the default if it is absent."""
        return self.call(lambda client: client.directory(path, default))

    def get_perms(self, path: str) -> list[tuple[str, int]]:
        """Return a node's permissions, (letter, domid) each; the first is the owner's."""
        return self.call(lambda client: client.get_perms(path))

    def set_perms(self, path: str, perms: list[tuple[str, int]]) -> None:
        """Set a node's permissions."""
        self.call(lambda client: client.set_perms(path, perms))

    def transact(self, work: Callable[[Any], Awaitable[Result]], tries: int = 16) -> Result:
        """Run a transaction. work: an async function of it, such as `async def work(t): ...`."""
        return self.call(lambda client: client.transact(work, tries))

    def watch(self, path: str, tell: Tell, depth: int | None = None) -> WatchHandle:
        """Set a watch; tell(path, token) is called for each event, in order."""

        async def begin(client: Xenstore) -> WatchHandle:
            return WatchHandle(self, await client.watch(path, depth, EVENTS), tell)

        return self.call(begin)
