"""What a dump is going to keep, in one line for the console, by the classes of the page filter."""

from xenpv.abi import PAGE_SIZE

MIB = 1 << 20
# Classes of the page filter that are kept.
KEPT = ("slab", "page tables")


def line(pages, found):
    """Return the line.

    Args:
        pages: number of pages in all.
        found: list of (class, number of pages), as pagefilter.PageFilter.survey() returns it.
    """
    kept = [(name, n) for name, n in found if name in KEPT and n]
    left_out = [(name, n) for name, n in found if name not in KEPT and n]
    count = pages - sum([n for _, n in left_out])
    if kept:
        kept.append(("other", count - sum([n for _, n in kept])))
    text = "to be kept: %d of %d MiB" % (_mib(count), _mib(pages))
    if kept:
        text += " (%s)" % _sizes(kept)
    if left_out:
        text += "; left out: " + _sizes(left_out)
    return text


def _sizes(classes):
    return ", ".join(["%s %d" % (name, _mib(n)) for name, n in classes])


def _mib(pages):
    return pages * PAGE_SIZE // MIB
