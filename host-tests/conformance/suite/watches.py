"""Cases: watches and their events."""

from xenpv import abi

from . import stage
from .case import abort, case, code, commit, in_turn


@case(".")
async def the_first_event_tells_the_watched_path(here):
    watch = await here.store.watch(here.base)
    return here.short(await watch.next())


@case("x, then x")
async def what_is_not_there_can_be_watched(here):
    watch = await here.store.watch(here("x"))
    first = here.short(await watch.next())
    await here.store.write(here("x"), "")
    return first + ", then " + await here.events(watch)


@case("data/relative/x")
async def events_of_a_relative_watch_are_relative(here):
    watch = await here.store.watch("data/relative")
    await watch.next()
    await here.store.write("data/relative/x", "")
    seen = await here.events(watch)
    await here.store.rm("data/relative")
    return seen.split(" ")[-1]


@case("same")
async def events_of_an_absolute_watch_are_absolute(here):
    home = await here.store.get_domain_path(here.domid)
    watch = await here.store.watch(home + "/data/absolute")
    await watch.next()
    await here.store.write("data/absolute", "")
    seen = await here.events(watch)
    await here.store.rm("data/absolute")
    return "same" if seen == home + "/data/absolute" else seen


@case("x x x x")
async def each_kind_of_change_is_told(here):
    watch = await here.watch("x")
    await here.store.mkdir(here("x"))
    await here.store.write(here("x"), "value")
    await here.store.set_perms(here("x"), [("n", here.domid), ("r", 7)])
    await here.store.rm(here("x"))
    return await here.events(watch)


@case("x x")
async def writing_the_same_again_is_a_change(here):
    watch = await here.watch("x")
    await here.store.write(here("x"), "value")
    await here.store.write(here("x"), "value")
    return await here.events(watch)


@case("none")
async def what_changes_nothing_is_not_told(here):
    await here.store.write(here("x"), "")
    watch = await here.watch("")
    await here.store.mkdir(here("x"))
    await here.store.rm(here("absent"))
    await here.store.read(here("x"))
    await here.store.directory(here.base)
    return await here.events(watch)


@case("none")
async def what_fails_is_not_told(here):
    watch = await here.watch("")
    await code(here.store.rm(here("a/b")))
    await here.raw(abi.XS_WRITE, here("x//y").encode() + b"\0")
    return await here.events(watch)


@case("a/b/c a/b/c")
async def what_is_below_is_told_with_its_own_path(here):
    await here.store.write(here("a/b/c"), "")
    watch = await here.watch("")
    top = await here.watch("a")
    await here.store.write(here("a/b/c"), "value")
    return await here.events(watch, top)


@case("a/b/c")
async def parents_that_are_made_are_not_told_of(here):
    watch = await here.watch("")
    await here.store.write(here("a/b/c"), "value")
    return await here.events(watch)


@case("none")
async def what_is_beside_or_above_is_not_told(here):
    await here.store.write(here("a/b"), "")
    watch = await here.watch("a/b")
    for name in ("a/bc", "a/c", "a", "b"):
        await here.store.write(here(name), "value")
    return await here.events(watch)


@case("1 2 3 4 5 1")
async def events_come_in_the_order_of_the_changes(here):
    watch = await here.watch("")
    for name in ("1", "2", "3", "4", "5", "1"):
        await here.store.write(here(name), "")
    return await here.events(watch)


@case("a/b")
async def a_watch_is_told_of_its_parent_s_removal_by_its_own_path(here):
    await here.store.write(here("a/b/c"), "")
    watch = await here.watch("a/b")
    await here.store.rm(here("a"))
    return await here.events(watch)


@case("a")
async def a_tree_s_removal_is_told_once_to_who_watches_above(here):
    await here.store.write(here("a/b/c"), "")
    await here.store.write(here("a/d"), "")
    watch = await here.watch("")
    await here.store.rm(here("a"))
    return await here.events(watch)


@case("none")
async def a_watch_of_what_was_not_there_is_not_told_of_its_parent_s_removal(here):
    await here.store.write(here("a/b"), "")
    watch = await here.watch("a/absent")
    await here.store.rm(here("a"))
    return await here.events(watch)


@case("x x")
async def two_watches_of_a_path_are_both_told(here):
    first = await here.watch("")
    second = await here.watch("")
    await here.store.write(here("x"), "")
    return await here.events(first, second)


@case("ok EEXIST ok")
async def a_watch_is_path_and_token(here):
    path = here.base.encode() + b"\0"
    return await in_turn(
        [here.raw(abi.XS_WATCH, path + token) for token in (b"a\0", b"a\0", b"b\0")]
    )


@case("ok ENOENT")
async def a_watch_ends_once(here):
    words = here.base.encode() + b"\0token\0"
    await here.raw(abi.XS_WATCH, words)
    return await here.raw(abi.XS_UNWATCH, words) + " " + await here.raw(abi.XS_UNWATCH, words)


@case("ENOENT ENOENT")
async def a_watch_ends_by_its_own_path_and_token(here):
    await here.raw(abi.XS_WATCH, here.base.encode() + b"\0token\0")
    other = await here.raw(abi.XS_UNWATCH, here.base.encode() + b"\0other\0")
    return other + " " + await here.raw(abi.XS_UNWATCH, here("x").encode() + b"\0token\0")


@case("nothing stray")
async def an_ended_watch_is_silent(here):
    watch = await here.watch("")
    await watch.close()
    before = here.store._session.strays
    await here.store.write(here("x"), "")
    await here.events()
    return "nothing stray" if here.store._session.strays == before else "stray events"


@case("ok EINVAL EINVAL")
async def a_watched_path_is_a_path(here):
    return await in_turn(
        [
            here.raw(abi.XS_WATCH, path + b"\0token\0")
            for path in (here("x").encode(), here("x//y").encode(), here("x/").encode())
        ]
    )


@case("none, then a b c")
async def a_transaction_s_changes_are_told_at_its_commit(here):
    watch = await here.watch("")
    t = await here.begin()
    for name in ("a", "b", "c"):
        await t.write(here(name), "")
    before = await here.events(watch)
    await commit(t)
    return before + ", then " + await here.events(watch)


@case("none")
async def an_aborted_transaction_s_changes_are_not_told(here):
    watch = await here.watch("")
    t = await here.begin()
    await t.write(here("a"), "")
    await abort(t)
    return await here.events(watch)


@case("x")
async def a_watch_in_a_transaction_is_set_at_once(here):
    t = await here.begin()
    await here.raw(abi.XS_WATCH, here("x").encode() + b"\0token\0", t.tx_id)
    watch = await here.watch("")
    await here.store.write(here("x"), "")
    await abort(t)
    return await here.events(watch)


@case("none", None)
async def what_a_guest_may_not_read_it_is_not_told(here):
    # Nor its parent, which tells as much by the list of its children.
    watch = await here.store.watch(stage.path("hidden/drop"))
    await watch.next()
    await here.store.write(stage.path("hidden/drop"), "dropped")
    return await here.events(watch)


@case("none, then x")
async def all_watches_can_be_ended_at_once(here):
    await here.watch("")
    await here.store.reset_watches()
    before = here.store._session.strays
    await here.store.write(here("x"), "")
    await here.events()
    silent = "none" if here.store._session.strays == before else "stray events"
    watch = await here.watch("")
    await here.store.write(here("x"), "")
    return silent + ", then " + await here.events(watch)


@case("ok, first event @releaseDomain", "ok, first event @releaseDomain")
async def a_special_watch_can_be_set(here):
    watch = await here.store.watch("@releaseDomain")
    return "ok, first event " + await watch.next()


@case("0: a, 1: a a/b, all: a a/b a/b/c")
async def depth_limits_what_is_told(here):
    await here.store.write(here("a/b/c"), "")
    watches = []
    for depth in (0, 1, None):
        watches.append(await here.watch("a", depth))
    for name in ("a", "a/b", "a/b/c"):
        await here.store.write(here(name), "value")
    told = []
    for watch in watches:
        told.append(await here.events(watch))
    return "0: %s, 1: %s, all: %s" % tuple(told)
