"""Frames of the crashed kernel that no backend can be given, and how they are found ahead.

Used by Target, which writes zeros in place of such a frame: it has no memory behind it, as where a
balloon driver gave it back to Xen, or is another domain's. Rules: a guest without such frames pays
nothing, for Xen is asked only once a write has failed. From then on a block is sampled before it is
written; if the sample or the block before has such a frame, Xen is asked about each frame. A frame
that the sample misses comes back as a failed write.
"""

from xenpv.hypercall import COPIES

BLOCK = 256
STEP = 16


class Holes:
    """The frames met so far that cannot be lent.

    Args:
        xen: Hypercalls.
        ahead: ask about each frame from the start, for a reader: without memory behind it a frame
            reads as ones, slowly, and nothing fails.

    Attributes: count, how many were met.
    """

    def __init__(self, xen, ahead=False):
        self.xen = xen
        self._ahead = ahead
        self.count = 0
        # Whether the last block had any.
        self._dense = True

    def find(self, gfn, count):
        """Ask Xen about each of `count` frames from gfn on. Returns those that cannot be lent."""
        found = []
        end = gfn + count
        while gfn < end:
            n = min(COPIES, end - gfn)
            found += self.xen.refused(list(range(gfn, gfn + n)))
            gfn += n
        self.count += len(found)
        return found

    def runs(self, gfn, count):
        """Split frames into runs of those that can be lent and those that cannot.

        Yields [first frame, number, whether they can be lent], in order.
        """
        if self.count == 0 and not self._ahead:
            yield [gfn, count, True]
            return
        end = gfn + count
        while gfn < end:
            n = min(BLOCK - gfn % BLOCK, end - gfn)
            for run in self._block(gfn, n):
                yield run
            gfn += n

    def _block(self, gfn, count):
        sampled = not self._dense and not self._ahead
        if sampled and not self.xen.refused(list(range(gfn, gfn + count, STEP))):
            return [[gfn, count, True]]
        found = self.find(gfn, count)
        self._dense = len(found) > 0
        return runs(gfn, count, found)


def runs(gfn, count, holes):
    """Split `count` frames from gfn on at those in `holes`, a list in ascending order.

    Returns a list of [first frame, number, whether they are not in holes].
    """
    result = []
    at = gfn
    for hole in holes:
        if hole > at:
            result.append([at, hole - at, True])
        if result and not result[-1][2]:
            result[-1][1] += 1
        else:
            result.append([hole, 1, False])
        at = hole + 1
    if at < gfn + count:
        result.append([at, gfn + count - at, True])
    return result
