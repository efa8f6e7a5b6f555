"""Cases: how much a guest may have. The specification leaves the figures to the server; those
expected here are C xenstored's."""

from xenpv import abi
from xenpv.errors import XenstoreError

from .case import abort, case, code, commit

FAR = 300


@case("E2BIG after 128", None)
async def watches_are_counted(here):
    path = here.base.encode() + b"\0"
    for i in range(FAR):
        seen = await here.raw(abi.XS_WATCH, path + b"%d\0" % i)
        if seen != "ok":
            return "%s after %d" % (seen, i)
    return "no end"


@case("ENOSPC after 10", None)
async def transactions_are_counted(here):
    for i in range(FAR):
        try:
            await here.begin()
        except XenstoreError as e:
            return "%s after %d" % (e.code, i)
    return "no end"


@case("ok after one has ended", None)
async def an_ended_transaction_makes_room_for_another(here):
    begun = []
    try:
        while len(begun) < FAR:
            begun.append(await here.begin())
    except XenstoreError:
        await abort(begun.pop())
        return await commit(await here.begin()) + " after one has ended"
    return "no end"


@case("ENOSPC", None)
async def nodes_are_counted(here):
    loop = here.store.loop
    for i in range(20):
        names = [here("%d/%d" % (i, k)) for k in range(60)]
        seen = await loop.gather([code(here.store.write(name, "")) for name in names])
        wrong = [one for one in seen if one != "ok"]
        if wrong:
            return wrong[0]
    return "no end"


@case("ok ENOSPC", None)
async def a_node_is_not_large(here):
    small = await code(here.store.write(here("small"), b"v" * 1900))
    return small + " " + await code(here.store.write(here("large"), b"v" * 2049))


@case("ENOSPC", None)
async def a_node_s_children_are_part_of_its_size(here):
    loop = here.store.loop
    names = [here("d/a-child-with-a-long-name-%d" % i) for i in range(100)]
    seen = await loop.gather([code(here.store.write(name, "")) for name in names])
    wrong = [one for one in seen if one != "ok"]
    return wrong[0] if wrong else "no end"


@case("ok", None)
async def what_was_removed_does_not_count(here):
    loop = here.store.loop
    for _ in range(3):
        for i in range(8):
            names = [here("%d/%d" % (i, k)) for k in range(50)]
            seen = await loop.gather([code(here.store.write(name, "")) for name in names])
            wrong = [one for one in seen if one != "ok"]
            if wrong:
                return wrong[0]
        for i in range(8):
            await here.store.rm(here(str(i)))
    return "ok"
