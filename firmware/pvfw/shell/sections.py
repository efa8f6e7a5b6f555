"""A script's text in its sections: the script itself, and the modules that came with it.

Used by shell.mode; `pvdump script --with` and `./build.py run --with` write them. A module begins
with a line

    #!module suite/case.py

behind the script or another module. Rule: the texts stay where they are, nothing is copied.
"""

from xenpv.text import printable

MARK = b"\n#!module "
# Bytes of what the toolstack gives that are looked at: a script with its modules.
CONTENT_MAX = 4 << 20
# Bytes that are looked through at a time, and the most that the line of a module has.
STEP = 4096
LINE_MAX = 256


def split(content):
    """Return (the script, the modules: a dict of texts by path).

    Args:
        content: bytes or memoryview; so are the texts.
    """
    marks = _marks(content)
    ends = marks[1:] + [len(content)]
    modules = {}
    for at, end in zip(marks, ends):
        begin = at + len(MARK)
        name = bytes(content[begin : min(begin + LINE_MAX, end)]).split(b"\n")[0]
        modules[printable(name).strip()] = content[min(begin + len(name) + 1, end) : end]
    return content[: marks[0]] if marks else content, modules


def _marks(content):
    """Return where the modules' lines begin, a list."""
    found = []
    for first in range(0, len(content), STEP):
        part = bytes(content[first : first + STEP + len(MARK) - 1])
        at = part.find(MARK)
        while at >= 0:
            found.append(first + at)
            at = part.find(MARK, at + 1)
    return found
