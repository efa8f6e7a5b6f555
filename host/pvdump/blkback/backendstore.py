"""Xenstore as the backend uses it, over a connection that any thread may use.

Made by `pvdump blkback`. The rules: a node that is absent is None, or an empty list; other errors
are raised. Texts are UTF-8, and other bytes, which a guest or a path may have, become surrogates
and are written back as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xenpv.errors import XenstoreError

from ..xenstore.store import Store


def text(value: bytes) -> str:
    """Decode a node's value."""
    return value.decode("utf-8", "surrogateescape")


def raw(value: str) -> bytes:
    """Encode a text as a node's value."""
    return value.encode("utf-8", "surrogateescape")


class BackendStore:
    """The operations of ports.BackendStore, and directory(). All raise XenError."""

    def __init__(self, store: Store) -> None:
        self.store = store

    def read(self, path: str) -> str | None:
        """Return a node's value, or None if there is no such node."""
        value = self.store.find(path)
        return None if value is None else text(value)

    def remove(self, path: str) -> None:
        """Remove a node and all below it, if it is there."""
        try:
            self.store.rm(path)
        except XenstoreError as error:
            if error.code != "ENOENT":
                raise

    def directory(self, path: str) -> list[str]:
        """Return the names of a node's children."""
        return self.store.directory(path, [])

    def update(self, device: str, values: Mapping[str, str]) -> bool:
        """Write all nodes at once, or none if the device's `frontend` node is gone.

        Args:
            device: the path of the backend's nodes of a device.
            values: by the whole path of each node.

        Returns: whether the device was there.
        """

        async def work(transaction: Any) -> bool:
            if await transaction.find(f"{device}/frontend") is None:
                return False
            for path, value in values.items():
                await transaction.write(path, raw(value))
            return True

        return self.store.transact(work)
