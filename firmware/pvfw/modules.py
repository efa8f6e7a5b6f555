"""The modules that the loader put beside the image, and the command line that one may hold.

Used by the images' entries and by the options. Where a door has no command line, as hvmloader's
has not, the first module may be a text that stands for it.
"""

import hw
from xenpv.text import printable

TEXT_MAGIC = b"#pvdump"
TEXT_MAX = 2048
RAM = 1  # type of a range of memory


def content(addr, length, memmap, most):
    """Return the first bytes of a module, `most` at most; None where no memory can be there."""
    end = addr + length
    # A loader of the oldest PVH version says nothing of the memory.
    if memmap and not any(at <= addr and end <= at + n for at, n, kind in memmap if kind == RAM):
        return None
    try:
        return hw.mem(addr, min(length, most))
    except ValueError:
        return None


def text(cmdline, contents):
    """Return the command line in force, printable.

    Args:
        cmdline: bytes that came in through the door.
        contents: of the modules; the first may be a text that counts where the door had no command
            line.
    """
    raw = cmdline
    if not raw.strip() and contents:
        raw = bytes(contents[0][:TEXT_MAX])
        if raw[: len(TEXT_MAGIC)] != TEXT_MAGIC:
            return ""
        # A script may follow (shell/mode.py).
        raw = raw.split(b"\n#!")[0]
        raw = b" ".join(line for line in raw.split(b"\n") if line[:1] != b"#")
    return printable(raw, " ")
