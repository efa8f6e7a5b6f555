# Two domains find each other, share a page, and ring each other's bell by an event channel.
#
# Start it in both:  ./build.py run examples/partner.py examples/partner.py
# On a real Xen, tell each in dom0 which domain the other one is:
#   xenstore-write /local/domain/ONE/data/partner TWO
#   xenstore-write /local/domain/TWO/data/partner ONE
# The one with the lower number offers the page and waits, however long the partner takes.

from xenpv import abi
from xenpv.errors import XenstoreError

FROM_GRANT, TO_GRANT = 1, 2  # flags of GNTTABOP_copy
QUESTION, ANSWER = 0, 64  # where they stand in the page
SIZE = 64


async def node(path):
    """Wait until there is a node that we may read. Returns its value, str."""
    watch = await store.watch(path)
    value = None
    while value is None:
        await watch.next(None)
        try:
            value = await store.find(path)
        except XenstoreError as error:
            # Its owner makes it first, and lets us read it then.
            if error.code != "EACCES":
                raise
    await watch.close()
    return value.decode()


def copy(source, target, flags):
    """Have Xen copy SIZE bytes. source, target: (frame or grant, domain, offset)."""
    fields = source + (0,) + target + (0, SIZE, flags, 0)
    xen.call("copy", abi.HYPERVISOR_grant_table_op, abi.GNTTABOP_copy, abi.GNTTAB_COPY, *fields)
    status = xen.result("<h", abi.GNTTAB_COPY_STATUS)
    assert status == abi.GNTST_okay, "the copy's status is %d" % status


def text(at):
    return bytes(hw.mem(at, SIZE)).rstrip(b"\0").decode()


async def offer(me, other):
    """Lend a page with a question, and wait for the answer."""
    page, refs = hw.alloc_pages(1), hw.alloc_pages(1)
    question = b"who is there, domain %d?" % other
    hw.mem(page, len(question))[:] = question
    lent = grants.lend(refs, 1, other, page // abi.PAGE_SIZE, False)
    port = evtchn.alloc_unbound(other)
    await store.write("data/offer", "%d %d" % (hw.rd32(refs), port))
    # "n": nobody else may use it; "r": but this domain reads it.
    await store.set_perms("data/offer", [("n", me), ("r", other)])
    print("domain %d waits for domain %d" % (me, other))
    while not hw.mem(page + ANSWER, 1)[0]:
        # An event is a hint: what counts is what stands in the page.
        await loop.port(port).wait(None)
    print("domain %d answers: %s" % (other, text(page + ANSWER)))
    loop.forget(port)
    evtchn.close(port)
    lent.end(refs, 1)


async def accept(me, other):
    """Read the question in the other's page, and put an answer there."""
    grant, port = [
        int(word) for word in (await node("/local/domain/%d/data/offer" % other)).split()
    ]
    near = evtchn.bind_interdomain(other, port)
    page = hw.alloc_pages(1)
    frame = page // abi.PAGE_SIZE
    copy((grant, other, QUESTION), (frame, abi.DOMID_SELF, 0), FROM_GRANT)
    print("domain %d asks: %s" % (other, text(page)))
    answer = b"%s, domain %d" % (await store.read("name"), me)
    hw.mem(page, SIZE)[:] = (answer + bytes(SIZE))[:SIZE]
    copy((frame, abi.DOMID_SELF, 0), (grant, other, ANSWER), TO_GRANT)
    evtchn.send(near)
    evtchn.close(near)


me = await store.read_int("domid")
other = int(await node("data/partner"))
await (offer if me < other else accept)(me, other)
