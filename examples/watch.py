# Watches a node and tells each change, until somebody writes "end" into it.
#
# In dom0, while it runs:  xenstore-write /local/domain/DOMID/data/example hello
# When nobody does so for a second, the script writes to the node itself.

from xenpv.loop import SECOND

PATH = "data/example"


async def nobody_else():
    await loop.sleep(SECOND)
    for value in ("one", "two", "end"):
        await store.write(PATH, value)
        await loop.sleep(SECOND // 2)


began = loop.now()
watch = await store.watch(PATH)
writer = loop.spawn(nobody_else())
value = None
while value != b"end":
    # The first event comes at once: it says that the watch is set. Changes that follow each other
    # fast may be one event, so an event is a reason to look, and says nothing of the value.
    path = await watch.next(60 * SECOND)
    value = await store.find(PATH)
    print("%5d ms  %s is %s" % ((loop.now() - began) // 10**6, path, value))
writer.cancel()
await watch.close()
