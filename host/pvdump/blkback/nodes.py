"""Xenstore as the backend wants it, over a connection that any thread may use.

Used by host.py and attach.py. The rule: what is not there is None, or nothing; other errors are
raised as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from xenpv.errors import XenstoreError

from ..xenstore.store import Store


class Nodes:
    def __init__(self, store: Store) -> None:
        self.store = store

    def read(self, path: str) -> str | None:
        value = self.store.find(path)
        return None if value is None else value.decode("latin-1")

    def write(self, path: str, value: str) -> None:
        self.store.write(path, value)

    def remove(self, path: str) -> None:
        try:
            self.store.rm(path)
        except XenstoreError as error:
            if error.code != "ENOENT":
                raise

    def directory(self, path: str) -> list[str]:
        return self.store.directory(path, [])

    def update(self, path: str, values: Mapping[str, str]) -> bool:
        async def work(transaction: Any) -> bool:
            if await transaction.find(f"{path}/frontend") is None:
                return False
            for key, value in values.items():
                await transaction.write(f"{path}/{key}", value)
            return True

        return self.store.transact(work)
