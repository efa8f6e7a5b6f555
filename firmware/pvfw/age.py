"""The age file that an encrypted dump is: its header and its keys.

Used by sealed, which encrypts the file's pieces. Rules: each file has a key of its own, drawn anew,
so no key ever encrypts two contents; whoever is named as a recipient can decrypt the whole, and a
recipient that would let everybody do so is an error, never passed over; nothing of the crashed
kernel's memory is taken for random.
Source: C2SP, age.md (age-encryption.org/v1); RFC 5869, HKDF; RFC 2104, HMAC.
"""

import binascii
import hashlib
import struct

import hw

from . import chunks
from .clock import now_utc
from .errors import DumpError

LABEL = b"age-encryption.org/v1/X25519"
BASE_POINT = bytes([9]) + bytes(31)
KEY_SIZE = 32
FILE_KEY_SIZE = 16
NONCE_SIZE = 16
TAG_SIZE = 16
# Bytes of a piece before it is encrypted; only the last one may have fewer.
PIECE_SIZE = 65536
_BLOCK = 64  # of SHA-256


class Keys:
    """Draws the keys of files for the same recipients.

    Args:
        recipients: X25519 public keys, 32 bytes each.
        nonce: random bytes of the time when the image was armed.
    """

    def __init__(self, recipients, nonce):
        self._recipients = recipients
        # Two runs with one nonce, as of a domain restored twice, differ in the rest.
        times = struct.pack("<QQ", now_utc(), hw.now())
        self._seed = hmac(nonce, hw.entropy() + times)
        self._drawn = 0

    def _draw(self, size):
        """Return random bytes, KEY_SIZE at most, that were not drawn before."""
        self._drawn += 1
        return hmac(self._seed, struct.pack("<Q", self._drawn))[:size]

    def file(self):
        """Begin a file.

        Returns: (its header with the nonce behind it, bytes; the key of its pieces).

        Raises DumpError where a recipient is no key.
        """
        key = self._draw(FILE_KEY_SIZE)
        header = chunks.AGE_INTRO
        for recipient in self._recipients:
            header += self._stanza(recipient, key)
        header += b"---"
        mac = hmac(hkdf(key, b"", b"header"), header)
        nonce = self._draw(NONCE_SIZE)
        return header + b" " + base64(mac) + b"\n" + nonce, hkdf(key, nonce, b"payload")

    def _stanza(self, recipient, key):
        """Return the lines that let a recipient get at the file's key."""
        secret = self._draw(KEY_SIZE)
        public = hw.x25519(secret, BASE_POINT)
        shared = hw.x25519(secret, recipient)
        if shared == bytes(KEY_SIZE):
            raise DumpError("a recipient in the configuration is no key: `pvdump arm` anew")
        wrapped = bytearray(len(key) + TAG_SIZE)
        hw.seal(hkdf(shared, public + recipient, LABEL), 0, False, key, wrapped)
        return b"-> X25519 " + base64(public) + b"\n" + base64(wrapped) + b"\n"


def base64(data):
    """Return Base64 without padding."""
    return binascii.b2a_base64(data).rstrip(b"=\n")


def hmac(key, data):
    """Return HMAC-SHA-256. key: _BLOCK bytes at most."""
    key = key + bytes(_BLOCK - len(key))
    inner = hashlib.sha256(bytes([each ^ 0x36 for each in key]) + data).digest()
    return hashlib.sha256(bytes([each ^ 0x5C for each in key]) + inner).digest()


def hkdf(key, salt, label):
    """Return KEY_SIZE bytes that HKDF-SHA-256 derives of a key; salt: _BLOCK bytes at most."""
    return hmac(hmac(salt, key), label + b"\1")
