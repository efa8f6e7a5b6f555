"""minisign's public keys and signature files: what they say, and whether a signature holds.

Used by trust.py, which reads them from a disk. No I/O. Rules: only signatures of a file's BLAKE2b
hash ("ED") are taken, those of the file itself ("Ed", minisign's legacy format) are refused by
name; a signature holds only with its trusted comment, which is signed as well. Whatever a file
says, it ends in a Signature or in NotSigned.
Source: minisign(1); https://jedisct1.github.io/minisign/, "Signature format".
"""

import binascii
import struct

import hw

from .errors import NotSigned

KEY_ALGORITHM = b"Ed"
HASHED, LEGACY = b"ED", b"Ed"
ID_SIZE = 8
KEY_SIZE = 42
SIGNATURE_SIZE = 74
OVERALL_SIZE = 64
UNTRUSTED = b"untrusted comment: "
TRUSTED = b"trusted comment: "
# Of the file: minisign itself reads comments of 1024 and of 8192 bytes.
FILE_MAX = 10240


class PublicKey:
    """A public key.

    Args:
        text: base64, bytes or str, as in the second line of minisign.pub.

    Attributes: id, 8 bytes; key, 32 bytes of Ed25519. Raises: NotSigned where it is none.
    """

    def __init__(self, text):
        raw = _decoded(text.encode() if isinstance(text, str) else text, KEY_SIZE)
        if raw is None or raw[:2] != KEY_ALGORITHM:
            raise NotSigned("no public key of minisign: the second line of minisign.pub expected")
        self.id = raw[2 : 2 + ID_SIZE]
        self.key = raw[2 + ID_SIZE :]


class Signature:
    """A signature file.

    Args:
        raw: its bytes.

    Attributes: id, of the key, 8 bytes; comment, the trusted one, bytes. Raises: NotSigned.
    """

    def __init__(self, raw):
        # The last line may have an end.
        lines = raw[:-1].split(b"\n") if raw[-1:] == b"\n" else raw.split(b"\n")
        if len(raw) > FILE_MAX or len(lines) != 4:
            raise NotSigned("no signature of minisign: 4 lines, of %d bytes, expected" % FILE_MAX)
        if [c for c in raw if c < 32 and c not in b"\t\n"]:
            raise NotSigned("no signature of minisign: it has bytes that are no text")
        if lines[0][: len(UNTRUSTED)] != UNTRUSTED or lines[2][: len(TRUSTED)] != TRUSTED:
            raise NotSigned("no signature of minisign: its comments are not where they should be")
        made = _decoded(lines[1], SIGNATURE_SIZE)
        self._overall = _decoded(lines[3], OVERALL_SIZE)
        if made is None or self._overall is None:
            raise NotSigned("the signature is damaged")
        if made[:2] == LEGACY:
            raise NotSigned("a signature of the file itself: sign it by minisign -S -H")
        if made[:2] != HASHED:
            raise NotSigned("a signature of an unknown kind")
        self.id = made[2 : 2 + ID_SIZE]
        self._signature = made[2 + ID_SIZE :]
        self.comment = lines[2][len(TRUSTED) :]

    def check_comment(self, key):
        """Refuse a trusted comment that is not the key's. Raises: NotSigned."""
        if self.id != key.id:
            raise NotSigned("signed by the key %s, not %s" % (_hex(self.id), _hex(key.id)))
        if not hw.ed25519_check(self._overall, key.key, self._signature + self.comment):
            raise NotSigned("the trusted comment is not what was signed")

    def check(self, key, digest):
        """Refuse a file that is not the one that the key has signed.

        Args:
            key: PublicKey.
            digest: BLAKE2b hash of the file, 64 bytes.

        Raises: NotSigned.
        """
        if self.id != key.id or not hw.ed25519_check(self._signature, key.key, digest):
            raise NotSigned("the content is not what was signed")
        self.check_comment(key)

    def names(self):
        """Return the names of files that the trusted comment has, bytes."""
        return [each[5:] for each in self.comment.split(b"\t") if each[:5] == b"file:"]


class Digest:
    """The BLAKE2b hash of a content, piece by piece."""

    def __init__(self):
        self._state = bytearray(256)

    def add(self, piece):
        """Add bytes, or a memoryview of them. Returns self."""
        hw.blake2b_update(self._state, piece)
        return self

    def value(self):
        """Return the hash of all that was added, 64 bytes."""
        return hw.blake2b_final(self._state)


def _decoded(text, size):
    """Return what base64 stands for, None unless it is of that size and in its one form."""
    try:
        raw = binascii.a2b_base64(text)
    except ValueError:
        return None
    if len(raw) != size or binascii.b2a_base64(raw)[:-1] != text:
        return None
    return raw


def _hex(id):
    """Return a key's identifier as minisign prints it."""
    return "%X" % struct.unpack("<Q", id)[0]
