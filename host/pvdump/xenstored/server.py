"""The store: one tree, its connections, and the watches of whoever lives in the same process.

Used by transports, which ask for a connection, and directly by the toolstack and the backends of
the embedded Xen, which act as domain 0. Watches fire after the change they tell of, never inside
it.
"""

from __future__ import annotations

from collections.abc import Callable

from .connection import Connection, parse_perms
from .tree import DOM0, StoreError, Tree


class Xenstored:
    def __init__(self) -> None:
        self.tree = Tree()
        self.connections: list[Connection] = []
        self._local: list[tuple[str, Callable[[], None]]] = []
        self.on_output: list[Callable[[], None]] = []  # transports that may have something to send

    def connect(self, domid: int) -> Connection:
        connection = Connection(self, domid)
        self.connections.append(connection)
        return connection

    def fire(self) -> None:
        """Tell everyone of the changes so far."""
        for change in self.tree.take_changes():
            for connection in self.connections:
                connection.changed(change)
            for path, tell in list(self._local):
                below = change.path == path or change.path.startswith(path + "/")
                if below or path in change.removed:
                    tell()
        for wake in self.on_output:
            wake()

    # As domain 0, from this process.

    def watch(self, path: str, tell: Callable[[], None]) -> None:
        """Call tell() after every change at or below path; it must not wait."""
        self._local.append((path, tell))

    def unwatch(self, path: str, tell: Callable[[], None]) -> None:
        self._local.remove((path, tell))

    def read(self, path: str, default: str | None = None) -> str:
        """A node's value as text. Raises StoreError ENOENT unless there is a default."""
        try:
            return self.tree.read(DOM0, path).decode("latin-1")
        except StoreError:
            if default is None:
                raise
            return default

    def write(self, path: str, value: object, perms: str | None = None) -> None:
        """Set a node; perms: such as "n1 r0"."""
        self.tree.write(DOM0, path, str(value).encode("latin-1"))
        if perms is not None:
            self.tree.set_perms(DOM0, path, parse_perms(perms.encode().split()))
        self.fire()

    def rm(self, path: str) -> None:
        self.tree.rm(DOM0, path)
        self.fire()

    def exists(self, path: str) -> bool:
        return self.tree.exists(path)
