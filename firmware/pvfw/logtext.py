"""The crashed kernel's log as text for people: on the console, and in xenstore where no disk is.

Used by the dump agent at the level that keeps the log alone. The rules: telling is never the reason
that a dump fails; the newest text is what counts, so it comes last and is what is left of a log
that is too long, or whose reader is too slow; the log is walked again rather than kept.

    data/pvdump/log/00, 01 ...  pieces of at most PIECE bytes, the newest last
    data/pvdump/log/pieces      their number, written when all of them are there

Xenstore's servers give a guest 1000 nodes of 2048 bytes, names of children and permissions among
them, by default.
"""

import hw
from xenpv.errors import XenError, XenstoreError
from xenpv.loop import SECOND

from .errors import reason
from .report import NODE, say

LOG = NODE + "log"
PIECE = 1792
# How many pieces are tried, since a guest may have used its quota for something else.
PIECES = (64, 16, 4)
NO_ROOM = ("ENOSPC", "EQUOTA", "E2BIG")
# How long the console may take, and records that are shown when that is over.
CONSOLE_TIME = 10 * SECOND
CONSOLE_NEWEST = 64
# Lines between two turns of the loop, which keeps the watchdog off.
TURN = 64


async def show(log, loop):
    """Put the log on the console, as much as its reader takes in CONSOLE_TIME, and its end.

    Args:
        log: printk.Log.
        loop: Loop.
    """
    say("the crashed kernel's log:")
    end = hw.now() + CONSOLE_TIME
    for number, line in enumerate(log.lines()):
        print(line)
        if number % TURN == TURN - 1:
            await loop.sleep(0)
            if hw.now() > end:
                say("the console is slow: %d records of the log's end follow" % CONSOLE_NEWEST)
                for last in log.lines(CONSOLE_NEWEST):
                    print(last)
                break
    say("end of the log")


async def store(log, xenstore):
    """Put the log's end into xenstore, in as many pieces as there is room for.

    Args:
        log: printk.Log.
        xenstore: Xenstore.

    Returns: bytes of text that are there. Raises XenError.
    """
    size = 0
    for line in log.lines():
        size += len(line) + 1
    for most in PIECES[:-1]:
        try:
            return await _put(log, xenstore, size, most)
        except XenstoreError as e:
            if e.code not in NO_ROOM:
                raise
    return await _put(log, xenstore, size, PIECES[-1])


async def _put(log, xenstore, size, most):
    """Write the last lines of the log's `size` bytes in `most` pieces, then the number of pieces.

    Returns the bytes written.
    """
    try:
        await xenstore.rm(LOG)
    except XenstoreError as e:
        if e.code != "ENOENT":
            raise
    skip = size - most * PIECE
    written = 0
    text = bytearray()
    number = 0
    for line in log.lines():
        raw = line.encode() + b"\n"
        if skip > 0:
            skip -= len(raw)
            continue
        text += raw
        written += len(raw)
        while len(text) >= PIECE:
            await xenstore.write("%s/%02d" % (LOG, number), bytes(text[:PIECE]))
            number += 1
            text = text[PIECE:]
    if text:
        await xenstore.write("%s/%02d" % (LOG, number), bytes(text))
        number += 1
    await xenstore.write(LOG + "/pieces", str(number))
    return written


async def tell(log, guest):
    """Put the log into xenstore; a line on the console says how that went.

    Args:
        log: printk.Log.
        guest: Guest.

    Returns: whether it is there.
    """
    try:
        size = await store(log, guest.store)
    except (XenError, MemoryError) as e:
        say("the log is not in xenstore: %s" % reason(e))
        return False
    say("%d KiB of the log's end are in xenstore, %s" % ((size + 1023) // 1024, LOG))
    return True
