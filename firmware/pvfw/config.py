"""The configuration of the image: a blob that `pvdump arm` makes and `kexec -p --initrd` loads.

The image reads it once at start, from memory; the host makes it (pvdump/arm/blob.py). Rules:
nothing counts before all of it was checked, and a blob that is damaged or contradicts itself is
refused as a whole, in one line; memory use does not grow with what a blob claims.

Layout, little-endian, without padding:

    offset  size  field
         0     8  magic "PVDCONF\\n"
         8     4  version, 1
        12     4  size: bytes of the blob
        16     -  records
    size-4     4  CRC-32 of all bytes before

Magic, size and CRC are the same in every version. A record:

    offset  size  field
         0     2  kind
         2     2  flags: bit 0 required: who does not know the kind must not go on without it
         4     4  bytes of the content
         8     -  content

The kinds; "once" means at most once:

    kind  content
       1  release, once: text, the kernel that the facts are of, as `uname -r` says
       2  target: UUID of its superblock, 16 bytes, then its disk's name (xvdb) as text. Their order
          is that of preference
       3  level, once: u8, 0 to 31 as makedumpfile's -d; 255: log, notes and stacks alone
       4  compression, once: u8 algorithm, 0 none, 1 zstd; i8 level
       5  end action, once: text, reboot, poweroff or halt
       6  fact: i64 value, then the name as text, VMCOREINFO's such as "SIZE(page)"; each name once
       7  recipient: X25519 public key, 32 bytes; each once. With recipients there must be a nonce
       8  log in clear, once: no content. The log may leave unencrypted in spite of recipients
       9  nonce, once: 32 random bytes
      10  target by extents, of a disk: UUID, 16 bytes, and nonce, 32 bytes, of its superblock; u16
          flags, bit 0: it is swap, so that its superblock has no copy yet; u16 number of extents,
          each u64 first sector and u32 sectors; then the disk's name as text

Texts are 1 to 64 printable ASCII characters, without spaces. Whoever needs more of a record defines
a new kind. Blobs have 64 KiB at most.
"""

import binascii
import struct

from xenpv.block.blkif import SECTOR
from xenpv.text import printable

from .errors import ConfigError, TargetRefused
from .extents import EXTENT_SIZE, Extents

MAGIC = b"PVDCONF\n"
VERSION = 1
SIZE_MAX = 65536
HEADER = "<8sII"
HEADER_SIZE = 16
RECORD = "<HHI"
RECORD_SIZE = 8
REQUIRED = 1

RELEASE = 1
TARGET = 2
LEVEL = 3
COMPRESSION = 4
END = 5
FACT = 6
RECIPIENT = 7
LOG_CLEAR = 8
NONCE = 9
PLACE = 10

LOG_ONLY = 255
LEVEL_MAX = 31
ALGORITHMS = ("none", "zstd")
ENDS = ("halt", "poweroff", "reboot")
TEXT_MAX = 64
UUID_SIZE = 16
KEY_SIZE = 32
NONCE_SIZE = 32
PLACE_HEAD = "<16s32sHH"
PLACE_HEAD_SIZE = 52
SWAP = 1
# By how often each may be there; a kind that is not here may be there once.
_MOST = {TARGET: 16, FACT: 256, RECIPIENT: 16, PLACE: 16}


class Target:
    """Where a dump may go; str() gives its name for messages.

    Args:
        name: of the disk, as the command line has it.
        uuid: of the superblock, 16 bytes; None for any.
        nonce: of the superblock, 32 bytes; None for any.
        extents: extents.Extents of the disk; None for the whole disk.
        swap: whether it is swap space as well.
    """

    def __init__(self, name, uuid=None, nonce=None, extents=None, swap=False):
        self.name = name
        self.uuid = uuid
        self.nonce = nonce
        self.extents = extents
        self.swap = swap

    def __str__(self):
        if self.extents is None:
            return self.name
        return "%s at sector %d" % (self.name, self.extents.first())

    def has_copy(self):
        """Tell whether its superblock must have a copy at its end before it is written."""
        return self.extents is not None and not self.swap

    def check(self, block):
        """Refuse another target's superblock. Raises TargetRefused."""
        if self.uuid is not None and block.uuid != self.uuid:
            raise TargetRefused("another target is there, by its UUID: `pvdump arm` anew")
        if self.nonce is not None and block.nonce != self.nonce:
            raise TargetRefused(
                "it was prepared or armed anew since, by its nonce: `pvdump arm` anew"
            )
        if self.extents is not None and block.size != self.extents.sectors * SECTOR:
            raise TargetRefused("its superblock is of another size: `pvdump arm` anew")


class Config:
    """What the blob says; an attribute that is None or empty is not in it.

    Attributes:
        release: the kernel that the facts are of.
        targets: of Target, in order of preference.
        level: 0 to LEVEL_MAX, or LOG_ONLY.
        algorithm: one of ALGORITHMS.
        compression: its level.
        then: the end action, one of ENDS.
        facts: numbers by VMCOREINFO's names.
        recipients: X25519 public keys, 32 bytes each.
        log_clear: whether the log may leave unencrypted although there are recipients.
        nonce: 32 random bytes.
    """

    def __init__(self):
        self.release = None
        self.targets = []
        self.level = None
        self.algorithm = None
        self.compression = None
        self.then = None
        self.facts = {}
        self.recipients = []
        self.log_clear = False
        self.nonce = None


def decode(raw):
    """Read a blob.

    Args:
        raw: bytes or memoryview that begins with it; what stands behind it is not looked at.

    Returns: Config.

    Raises ConfigError where it is none, damaged, of another version, or contradicts itself.
    """
    raw = memoryview(raw)
    if len(raw) < HEADER_SIZE + 4 or bytes(raw[: len(MAGIC)]) != MAGIC:
        raise ConfigError("no configuration of pvdump")
    _, version, size = struct.unpack_from(HEADER, raw, 0)
    if not HEADER_SIZE + 4 <= size <= min(len(raw), SIZE_MAX):
        raise ConfigError(
            "the configuration is damaged: it says %d bytes, there are %d" % (size, len(raw))
        )
    end = size - 4
    if binascii.crc32(raw[:end]) != struct.unpack_from("<I", raw, end)[0]:
        raise ConfigError("the configuration is damaged (CRC)")
    if version != VERSION:
        raise ConfigError("configuration version %d, this pvdump knows %d" % (version, VERSION))
    config = Config()
    counts = {}
    at = HEADER_SIZE
    while at < end:
        if end - at < RECORD_SIZE:
            raise ConfigError("configuration: %d bytes behind the last record" % (end - at))
        kind, flags, length = struct.unpack_from(RECORD, raw, at)
        at += RECORD_SIZE
        if length > end - at:
            raise ConfigError(
                "configuration: record of kind %d has %d bytes, there are %d"
                % (kind, length, end - at)
            )
        if kind in _READERS:
            counts[kind] = counts.get(kind, 0) + 1
            if counts[kind] > _MOST.get(kind, 1):
                raise ConfigError("configuration: too many records of kind %d" % kind)
            _READERS[kind](config, raw[at : at + length])
        elif flags & REQUIRED:
            raise ConfigError("configuration: record of kind %d is required, not known" % kind)
        at += length
    if config.recipients and config.nonce is None:
        raise ConfigError("configuration: recipients, but no nonce to draw keys from")
    return config


def _release(config, content):
    config.release = _text(content, "release")


def _target(config, content):
    name = _text(content[UUID_SIZE:], "target")
    if name in [target.name for target in config.targets if target.extents is None]:
        raise ConfigError("configuration: target %s is there twice" % name)
    config.targets.append(Target(name, bytes(content[:UUID_SIZE])))


def _place(config, content):
    if len(content) < PLACE_HEAD_SIZE:
        raise ConfigError("configuration: target by extents of %d bytes" % len(content))
    uuid, nonce, flags, count = struct.unpack_from(PLACE_HEAD, content, 0)
    end = PLACE_HEAD_SIZE + count * EXTENT_SIZE
    name = _text(content[end:], "target")
    if flags & ~SWAP:
        raise ConfigError("configuration: target by extents with flags 0x%x" % flags)
    if uuid in [target.uuid for target in config.targets]:
        raise ConfigError("configuration: a target's UUID is there twice")
    try:
        extents = Extents(content[PLACE_HEAD_SIZE:end])
    except ConfigError as e:
        raise ConfigError("configuration: target on %s: %s" % (name, e))
    config.targets.append(Target(name, uuid, nonce, extents, bool(flags & SWAP)))


def _level(config, content):
    _size(content, 1, "level")
    if content[0] > LEVEL_MAX and content[0] != LOG_ONLY:
        raise ConfigError("configuration: level %d, 0 to %d expected" % (content[0], LEVEL_MAX))
    config.level = content[0]


def _compression(config, content):
    _size(content, 2, "compression")
    number, config.compression = struct.unpack_from("<Bb", content, 0)
    if number >= len(ALGORITHMS):
        raise ConfigError("configuration: algorithm %d is not known" % number)
    config.algorithm = ALGORITHMS[number]


def _end(config, content):
    then = _text(content, "end action")
    if then not in ENDS:
        raise ConfigError("configuration: end action %s, %s expected" % (then, ", ".join(ENDS)))
    config.then = then


def _fact(config, content):
    name = _text(content[8:], "fact")
    if name in config.facts:
        raise ConfigError("configuration: fact %s is there twice" % name)
    config.facts[name] = struct.unpack_from("<q", content, 0)[0]


def _recipient(config, content):
    _size(content, KEY_SIZE, "recipient")
    key = bytes(content)
    if key in config.recipients:
        raise ConfigError("configuration: a recipient is there twice")
    config.recipients.append(key)


def _log_clear(config, content):
    _size(content, 0, "log in clear")
    config.log_clear = True


def _nonce(config, content):
    _size(content, NONCE_SIZE, "nonce")
    config.nonce = bytes(content)


def _size(content, size, what):
    if len(content) != size:
        raise ConfigError("configuration: %s of %d bytes, not %d" % (what, len(content), size))


def _text(content, what):
    """Read a text at the end of a record; where the rest is too short there is no text."""
    if not 0 < len(content) <= TEXT_MAX:
        raise ConfigError("configuration: %s of %d characters" % (what, len(content)))
    text = printable(content, " ")
    if " " in text:
        raise ConfigError("configuration: %s is no text: %s" % (what, text))
    return text


_READERS = {
    RELEASE: _release,
    TARGET: _target,
    LEVEL: _level,
    COMPRESSION: _compression,
    END: _end,
    FACT: _fact,
    RECIPIENT: _recipient,
    LOG_CLEAR: _log_clear,
    NONCE: _nonce,
    PLACE: _place,
}
