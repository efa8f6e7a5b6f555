"""Block requests and responses as they lie in a ring, for both ends and both layouts.

Used by the front end, which packs requests, and by backends, which parse them. A front end of 32
bits lays the same fields out closer. Rule: a parser gets a private copy of an entry, and gives what
it says; its caller checks whether that makes sense.
Source: xen/include/public/io/blkif.h.
"""

import struct

from .. import abi

SECTOR = 512
PAGE_SECTORS = abi.PAGE_SIZE // SECTOR
SEGMENT = "<IBB2x"
SEGMENTS_A_PAGE = abi.PAGE_SIZE // abi.BLKIF_SEGMENT_SIZEOF
RESPONSE = "<QBxh"
OP_NAMES = {
    abi.BLKIF_OP_READ: "read",
    abi.BLKIF_OP_WRITE: "write",
    abi.BLKIF_OP_WRITE_BARRIER: "barrier",
    abi.BLKIF_OP_FLUSH_DISKCACHE: "flush",
    abi.BLKIF_OP_DISCARD: "discard",
    abi.BLKIF_OP_INDIRECT: "indirect",
}
STATUS_NAMES = {
    abi.BLKIF_RSP_OKAY: "OKAY",
    abi.BLKIF_RSP_ERROR: "ERROR",
    abi.BLKIF_RSP_EOPNOTSUPP: "EOPNOTSUPP",
}


class Request:
    """A request as an entry of a ring states it.

    Args:
        op: BLKIF_OP_*, for an indirect request that of its data.
        id, sector: as stated.
        count: how many segments it announces, or the sectors to discard.

    Attributes: the same, and data, its segments, 8 bytes each, none for an indirect one; grefs, of
    the pages with an indirect one's segments; flag, a discard's; is_indirect.
    """

    data = b""
    grefs = ()
    flag = 0
    is_indirect = False

    def __init__(self, op, id, sector, count):
        self.op = op
        self.id = id
        self.sector = sector
        self.count = count

    @property
    def segments(self):
        """The segments in `data`, a list of (gref, first_sect, last_sect)."""
        return segments(self.data, 0, len(self.data) // abi.BLKIF_SEGMENT_SIZEOF)


class Layout:
    """The layout of requests of one ABI.

    Args:
        protocol: its name in xenstore.
        stride: bytes of a ring's entry.
        pad: struct's padding before the id.

    Attributes: protocol, stride; sector, segments and indirect_grefs, offsets in an entry.
    """

    def __init__(self, protocol, stride, pad):
        self.protocol = protocol
        self.stride = stride
        self._request = "<BBH" + pad + "QQ"
        self._indirect = self._request + "H2x"
        self._discard = self._request + "Q"
        self.sector = struct.calcsize("<BBH" + pad + "Q")
        self.segments = struct.calcsize(self._request)
        self.indirect_grefs = struct.calcsize(self._indirect)

    def request(self, op, count, id, sector):
        """Pack a read, write, flush or barrier; its segments follow at `segments`."""
        return struct.pack(self._request, op, count, 0, id, sector)

    def indirect(self, op, count, id, sector):
        """Pack a request with segments in pages, whose grefs follow at `indirect_grefs`."""
        return struct.pack(self._indirect, abi.BLKIF_OP_INDIRECT, op, count, id, sector, 0)

    def discard(self, id, sector, count):
        """Pack a discard of `count` sectors."""
        return struct.pack(self._discard, abi.BLKIF_OP_DISCARD, 0, 0, id, sector, count)

    def parse(self, entry):
        """Parse an entry; of the segments that it announces, those that fit in it are taken.

        Args:
            entry: stride bytes, a private copy.

        Returns: a Request.
        """
        op, low, high, id, sector = struct.unpack_from(self._request, entry, 0)
        if op == abi.BLKIF_OP_DISCARD:
            request = Request(op, id, sector, struct.unpack_from("<Q", entry, self.segments)[0])
            request.flag = low
            return request
        if op == abi.BLKIF_OP_INDIRECT:
            request = Request(low, id, sector, high)
            request.is_indirect = True
            pages = (high + SEGMENTS_A_PAGE - 1) // SEGMENTS_A_PAGE
            pages = min(pages, abi.BLKIF_MAX_INDIRECT_PAGES_PER_REQUEST)
            at = self.indirect_grefs
            request.grefs = [struct.unpack_from("<I", entry, at + 4 * i)[0] for i in range(pages)]
            return request
        request = Request(op, id, sector, low)
        held = min(low, abi.BLKIF_MAX_SEGMENTS_PER_REQUEST)
        request.data = entry[self.segments : self.segments + held * abi.BLKIF_SEGMENT_SIZEOF]
        return request


def segments(data, at, count):
    """Unpack `count` segments at a byte offset. Returns a list of (gref, first_sect, last_sect)."""
    step = abi.BLKIF_SEGMENT_SIZEOF
    return [struct.unpack_from(SEGMENT, data, at + step * i) for i in range(count)]


X86_64 = Layout("x86_64-abi", 112, "4x")
X86_32 = Layout("x86_32-abi", 108, "")
LAYOUTS = {layout.protocol: layout for layout in (X86_64, X86_32)}
