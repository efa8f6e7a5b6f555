"""Whose signatures count, and whether a file of a disk has one of these.

Made by the boot mode where the toolstack names public keys, and reached by all readers through
their Volume. Rules: what a disk says is used as it was hashed, from memory, and never read a second
time; a signature counts for the name that its trusted comment has, so that a signed file does not
pass for another one; all else, whatever it is, is NotSigned.
"""

from .errors import NotSigned, NotThere
from .minisign import FILE_MAX, Digest, Signature
from .nodes import shown

END = b".minisig"
# Beside the file, for programs that would take its signature for a kernel.
FOLDER = b"/minisig/"


class Trust:
    """Public keys.

    Args:
        keys: list of minisign.PublicKey; without any, nothing is signed.
    """

    def __init__(self, keys):
        self._keys = keys

    async def signature(self, volume, path):
        """Return the Signature of a file, of which the content is still to be checked.

        Args:
            volume: Volume.
            path: bytes, as what names the file has it.

        Raises: NotSigned, also where its key or its name is another; as Volume.open().
        """
        where = "%s:%s" % (volume.name, shown(path))
        folder, _, name = path.rpartition(b"/")
        for place in (path + END, folder + FOLDER + name + END):
            try:
                raw = await (await volume.open(place)).text(FILE_MAX)
            except NotThere:
                continue
            try:
                found = Signature(raw)
                found.check_comment(self._key(found))
                _check_name(found, path)
            except NotSigned as e:
                raise NotSigned("%s: %s" % (where, e))
            return found
        raise NotSigned("%s: there is no signature %s" % (where, shown(name + END)))

    def check(self, signature, volume, path, digest):
        """Refuse a content.

        Args:
            signature: as signature() gave it.
            volume, path: of the file, for messages.
            digest: BLAKE2b hash of its content, 64 bytes.

        Raises: NotSigned.
        """
        try:
            signature.check(self._key(signature), digest)
        except NotSigned as e:
            raise NotSigned("%s:%s: %s" % (volume.name, shown(path), e))

    async def check_text(self, volume, path, raw):
        """Refuse a text that was read. Raises: as signature()."""
        self.check(await self.signature(volume, path), volume, path, Digest().add(raw).value())

    def _key(self, signature):
        for key in self._keys:
            if key.id == signature.id:
                return key
        if not self._keys:
            raise NotSigned("there is no key")
        return self._keys[0]


def _check_name(signature, path):
    """Refuse a signature that is not for the end of this path. Raises: NotSigned."""
    names = signature.names()
    for name in names:
        if name and (b"/" + path.lstrip(b"/")).endswith(b"/" + name):
            return
    if not names:
        raise NotSigned("the trusted comment has no file:NAME")
    raise NotSigned("it is the signature of %s" % shown(names[0]))
