"""The tools that decrypt an age file: the Python module pyrage, or the program age.

Used by decryption. The rules: nothing else uses a private key; a tool runs beside us, given the
file as it is read, and what it gives is taken from a pipe as it is wanted.
"""

from __future__ import annotations

import importlib
import io
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any, Callable

from pvfw.errors import DumpError

from .. import pip

PIECE = 1 << 16
FILE_MAX = 1 << 16  # bytes of a file of keys
PRIVATE = "AGE-SECRET-KEY-1"


class DecryptionError(DumpError):
    """The dump cannot be decrypted; the message says why, and what is to be done."""


def begin(pieces: Iterator[bytes], identity: Path) -> Tool:
    """Begin to decrypt.

    Args:
        pieces: of the age file, in order.
        identity: path of a file with private keys.

    Raises:
        DecryptionError: there is no tool, or no key.
    """
    try:
        with identity.open("rb") as stream:
            # A pipe, as of <(pass show key), gives its bytes once.
            once = not os.path.isfile(stream.fileno())  # noqa: PTH113
            raw = stream.read(FILE_MAX)
    except OSError as error:
        raise DecryptionError(f"{identity}: {error.strerror}") from error
    lines = [line.strip() for line in raw.decode("ascii", "replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    # Keys of other kinds, and files of keys that are encrypted themselves, only age reads.
    if lines and all(line.startswith(PRIVATE) for line in lines):
        with suppress(ImportError):
            return _Pyrage(importlib.import_module("pyrage"), pieces, identity, lines)
    if not lines:
        raise DecryptionError(f"{identity} has no private key: a line AGE-SECRET-KEY-1... expected")
    program = shutil.which("age")
    if program is None:
        raise DecryptionError(
            "decryption needs the program age: `apt install age`, or, for keys that begin with "
            f"AGE-SECRET-KEY-1, `{pip.install('pyrage')}`"
        )
    return _Age(program, pieces, identity, raw if once else None)


class Tool:
    """What decrypts in the background; its output comes by a pipe.

    Args:
        pieces: of the age file.
        feed: given the pieces, does the work in a thread, and raises what makes it fail.
        output: what the pipe is read from.
    """

    def __init__(
        self, pieces: Iterator[bytes], feed: Callable[[Iterator[bytes]], None], output: Any
    ) -> None:
        self._pieces = pieces
        self._output = output
        self._feed = feed
        self._error: Exception | None = None
        self._thread = Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._feed(self._given())
        except BrokenPipeError:
            pass  # nobody wants more
        except Exception as error:
            self._error = self._error or error

    def _given(self) -> Iterator[bytes]:
        """Give the pieces; remember why they ended early, which the tool may not pass on."""
        try:
            yield from self._pieces
        except DumpError as error:
            self._error = error
            raise

    def read(self) -> bytes:
        """Return more of the plaintext; b"" at its end."""
        piece: bytes = self._output.read(PIECE)
        return piece

    def failure(self) -> str:
        """Wait for the end. Returns why it came early, or "". Raises DiskError."""
        self._thread.join()
        if isinstance(self._error, DumpError):
            raise self._error
        return str(self._error) if self._error else ""

    def close(self) -> None:
        """End it, wherever it is."""
        self._output.close()
        self._thread.join()


class _Pyrage(Tool):
    """Decrypts by the Python module pyrage."""

    def __init__(
        self, pyrage: Any, pieces: Iterator[bytes], identity: Path, lines: list[str]
    ) -> None:
        try:
            keys = [pyrage.x25519.Identity.from_str(line) for line in lines]
        except Exception as error:
            raise DecryptionError(f"{identity}: a private key of it is damaged") from error
        there, here = os.pipe()

        def feed(given: Iterator[bytes]) -> None:
            with open(here, "wb") as out:  # noqa: PTH123 - a descriptor
                pyrage.decrypt_io(io.BufferedReader(_Reader(given)), out, keys)

        super().__init__(pieces, feed, open(there, "rb"))  # noqa: PTH123, SIM115


class _Age(Tool):
    """Decrypts by the program age. raw: the keys, where their file cannot be read again."""

    def __init__(
        self, program: str, pieces: Iterator[bytes], identity: Path, raw: bytes | None
    ) -> None:
        import subprocess  # takes a while, and few commands need it

        # In memory: there may be no room for files, and keys are in none that we make.
        self._said, keys = _memory(b""), _memory(raw or b"")
        name = os.path.abspath(identity) if raw is None else f"/dev/fd/{keys.fileno()}"  # noqa: PTH100
        with keys:
            self._process = process = subprocess.Popen(
                [program, "--decrypt", "--identity", name],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                pass_fds=[keys.fileno()],
            )
        assert process.stdin is not None
        stdin = process.stdin

        def feed(given: Iterator[bytes]) -> None:
            with stdin:
                for piece in given:
                    stdin.write(piece)

        super().__init__(pieces, feed, process.stdout)

    def failure(self) -> str:
        """Do as Tool; age's own words, if it failed."""
        why = super().failure()
        if not self._process.wait():
            return why
        self._said.seek(0)
        lines = self._said.read().decode("utf-8", "replace").splitlines()
        return lines[0] if lines else f"age failed, exit code {self._process.returncode}"

    def close(self) -> None:
        """End it, wherever it is."""
        self._process.kill()
        super().close()
        self._process.wait()
        self._said.close()


def _memory(content: bytes) -> io.FileIO:
    """Return a file in memory, which close() ends."""
    file = io.FileIO(os.memfd_create("pvdump"), "r+")
    file.write(content)
    return file


class _Reader(io.RawIOBase):
    """The pieces of an iterator as one file."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._rest = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer. Returns how many bytes; 0 at the end."""
        if not self._rest:
            self._rest = next(self._pieces, b"")
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count
