"""Cases: many requests in flight, callers that go away, connections that begin again."""

from xenpv import abi
from xenpv.errors import Timeout

from .case import case, code, value

MANY = 200


async def fill(here, count, size):
    """Write `count` values of `size` bytes at the same time, 10 to a directory."""
    values = {}
    for i in range(count):
        values[here("%d/%d" % (i // 10, i))] = (b"%d-" % i) * (size // len(b"%d-" % i))
    await here.store.loop.gather([here.store.write(path, raw) for path, raw in values.items()])
    return values


@case("200 right")
async def replies_reach_their_callers(here):
    values = await fill(here, MANY, 8)
    paths = list(values)
    found = await here.store.loop.gather([here.store.read(path) for path in paths])
    right = sum(raw == values[path] for path, raw in zip(paths, found))
    return "%d right" % right


@case("40 right")
async def large_replies_reach_their_callers(here):
    values = await fill(here, 40, 1700)
    paths = list(values)
    found = await here.store.loop.gather([here.store.read(path) for path in paths])
    right = sum(raw == values[path] for path, raw in zip(paths, found))
    return "%d right" % right


@case("100 right")
async def errors_reach_their_callers(here):
    await here.store.write(here("x"), "value")
    works = []
    for i in range(50):
        works.append(value(here.store.read(here("x"))))
        works.append(value(here.store.read(here("absent%d" % i))))
    found = await here.store.loop.gather(works)
    right = sum(seen == ("value", "ENOENT")[i % 2] for i, seen in enumerate(found))
    return "%d right" % right


@case("20 right")
async def reads_and_writes_of_transactions_do_not_mix(here):
    async def work(i):
        t = await here.begin()
        path = here("%d/x" % i)
        await t.write(path, str(i))
        seen = await t.read(path)
        await code(t.request(abi.XS_TRANSACTION_END, b"F\0", "abort"))
        return seen == str(i).encode()

    right = 0
    for begin in range(0, 20, 5):
        found = await here.store.loop.gather([work(i) for i in range(begin, begin + 5)])
        right += sum(found)
    return "%d right" % right


@case("other, one")
async def a_cancelled_caller_leaves_nothing_behind(here):
    await here.store.write(here("one"), "one")
    await here.store.write(here("other"), "other")
    loop = here.store.loop
    tasks = [loop.spawn(here.store.read(here("one"))) for _ in range(8)]
    # They have to run before they can be cancelled in flight.
    await loop.sleep(1)
    for task in tasks:
        task.cancel()
    seen = await value(here.store.read(here("other")))
    return seen + ", " + await value(here.store.read(here("one")))


@case("Timeout, other, one")
async def a_late_reply_is_nobody_s(here):
    await here.store.write(here("one"), "one")
    await here.store.write(here("other"), "other")
    words = here("one").encode() + b"\0"
    try:
        await here.store.request(abi.XS_READ, words, "read", timeout=1)
        seen = "in time"
    except Timeout:
        seen = "Timeout"
    seen += ", " + await value(here.store.read(here("other")))
    return seen + ", " + await value(here.store.read(here("one")))


@case("100 events in order")
async def events_between_replies_keep_their_order(here):
    watch = await here.store.watch(here.base, None, 300)
    await watch.next()
    for i in range(100):
        await here.store.write(here("%d" % (i % 7)), str(i))
    expected = " ".join(str(i % 7) for i in range(100))
    seen = await here.events(watch)
    return "100 events in order" if seen == expected else seen


@case("value, ENOENT, events none")
async def a_connection_made_again_has_nothing_of_the_old(here):
    await here.store.write(here("x"), "value")
    await here.store.watch(here.base)
    t = await here.begin()
    old = t.tx_id
    await here.store.close()
    await here.store.connect()
    seen = await value(here.store.read(here("x")))
    seen += ", " + await here.raw(abi.XS_READ, here("x").encode() + b"\0", old)
    before = here.store._session.strays
    await here.store.write(here("x"), "")
    await here.events()
    stray = here.store._session.strays - before
    return seen + ", events " + ("none" if stray == 0 else "stray")
