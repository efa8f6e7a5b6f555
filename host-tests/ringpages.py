"""Memory as a ring sees it, of one process: no fence is needed."""

import struct


class RingPages:
    """view: the bytes of the ring's pages."""

    def __init__(self, view):
        self.view = view

    def rd32(self, offset):
        return struct.unpack_from("<I", self.view, offset)[0]

    def wr32(self, offset, value):
        struct.pack_into("<I", self.view, offset, value)

    def mb(self):
        pass
