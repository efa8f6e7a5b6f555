"""The configuration blob in the direction that the image does not need: from a Config to bytes.

Used by `pvdump arm` and by tests. The rule: nothing is made that pvfw/config.py, which has the
layout, would refuse.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable

from pvfw import config
from pvfw.errors import ConfigError


def encode(made: config.Config) -> bytes:
    """Return the blob of a configuration.

    Raises:
        ConfigError: an attribute has a value that none can have.
    """
    try:
        blob = pack(_records(made))
    except (struct.error, ValueError) as error:
        raise ConfigError(f"configuration: {error}") from error
    config.decode(blob)
    return blob


def _records(made: config.Config) -> Iterable[tuple[int, int, bytes]]:
    """Give kind, flags and content of each record."""
    if made.release is not None:
        yield config.RELEASE, 0, made.release.encode()
    for target in made.targets:
        if len(target.uuid) != config.UUID_SIZE:
            raise ConfigError(f"configuration: a UUID of {len(target.uuid)} bytes")
        if target.extents is None:
            yield config.TARGET, config.REQUIRED, target.uuid + target.name.encode()
        else:
            yield config.PLACE, config.REQUIRED, _place(target)
    if made.level is not None:
        yield config.LEVEL, 0, struct.pack("<B", made.level)
    if made.algorithm is not None:
        algorithm = config.ALGORITHMS.index(made.algorithm)
        yield config.COMPRESSION, 0, struct.pack("<Bb", algorithm, made.compression)
    if made.then is not None:
        yield config.END, 0, made.then.encode()
    for name, value in sorted(made.facts.items()):
        yield config.FACT, 0, struct.pack("<q", value) + name.encode()
    for key in made.recipients:
        yield config.RECIPIENT, config.REQUIRED, key
    if made.log_clear:
        yield config.LOG_CLEAR, 0, b""
    if made.nonce is not None:
        yield config.NONCE, 0, made.nonce


def _place(target: config.Target) -> bytes:
    """Make the content of a target by extents."""
    if len(target.nonce) != config.NONCE_SIZE:
        raise ConfigError(f"configuration: a nonce of {len(target.nonce)} bytes")
    flags = config.SWAP if target.swap else 0
    count = len(target.extents)
    head = struct.pack(config.PLACE_HEAD, target.uuid, target.nonce, flags, count)
    return head + target.extents.raw() + target.name.encode()


def pack(records: Iterable[tuple[int, int, bytes]]) -> bytes:
    """Return the blob of records, each its kind, flags and content."""
    parts = []
    for kind, flags, content in records:
        parts += [struct.pack(config.RECORD, kind, flags, len(content)), content]
    body = b"".join(parts)
    size = config.HEADER_SIZE + len(body) + 4
    blob = struct.pack(config.HEADER, config.MAGIC, config.VERSION, size) + body
    return blob + struct.pack("<I", zlib.crc32(blob))
