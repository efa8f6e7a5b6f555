"""The entry point of the suite's image: all cases of a guest, one line each on the console.

case NAME: what was seen
conformance done COUNT
"""

import gc

import oneshot
from oneshot import say

from .all import GUEST, run

TOP = "data/conf"
told = []


def main():
    oneshot.run(work)


async def work(xen, loop, store):
    domid = await store.read_int("domid")
    await store.mkdir(TOP)
    await run(store, GUEST, TOP, domid, tell)
    return "conformance done %d" % len(told)


def tell(name, seen):
    told.append(name)
    say("case %s: %s" % (name, seen))
    gc.collect()
