"""Cases: reading, writing, making and removing nodes."""

from . import stage
from .case import case, code, listing, value


@case("value")
async def read_gives_what_was_written(here):
    await here.store.write(here("x"), "value")
    return await value(here.store.read(here("x")))


@case("second")
async def write_replaces_the_whole_value(here):
    await here.store.write(here("x"), "the first value")
    await here.store.write(here("x"), "second")
    return await value(here.store.read(here("x")))


@case("'' b '' c")
async def write_makes_missing_parents_empty(here):
    await here.store.write(here("a/b/c"), "value")
    a = await value(here.store.read(here("a")))
    b = await value(here.store.read(here("a/b")))
    below = await listing(here.store.directory(here("a")))
    return "'%s' %s '%s' %s" % (a, below, b, await listing(here.store.directory(here("a/b"))))


@case("''")
async def value_may_be_empty(here):
    await here.store.write(here("x"), "")
    return "'%s'" % await value(here.store.read(here("x")))


@case("b")
async def write_leaves_children_alone(here):
    await here.store.write(here("a/b"), "value")
    await here.store.write(here("a"), "another")
    return await listing(here.store.directory(here("a")))


@case("same")
async def value_may_have_any_bytes(here):
    raw = bytes(range(256))
    await here.store.write(here("x"), raw)
    return "same" if await here.store.read(here("x")) == raw else "another"


@case("NUL kept")
async def value_may_end_in_nul(here):
    await here.store.write(here("x"), b"value\0")
    return "NUL kept" if await here.store.read(here("x")) == b"value\0" else "NUL lost"


@case("same")
async def value_may_be_larger_than_the_ring(here):
    raw = bytes(range(250)) * 7
    await here.store.write(here("x"), raw)
    return "same" if await here.store.read(here("x")) == raw else "another"


@case(None, "same")
async def value_may_fill_a_payload(here):
    raw = b"v" * (4096 - len(here("x")) - 1)
    await here.store.write(here("x"), raw)
    return "same" if await here.store.read(here("x")) == raw else "another"


@case("refused, then ok")
async def a_payload_over_its_limit_is_not_sent(here):
    try:
        await here.store.write(here("x"), b"v" * (4096 - len(here("x"))))
    except ValueError:
        return "refused, then " + await code(here.store.write(here("x"), ""))
    return "sent"


@case("ENOENT ENOENT ENOENT ENOENT")
async def what_is_not_there_is_enoent(here):
    seen = [
        await value(here.store.read(here("x"))),
        await listing(here.store.directory(here("x"))),
        await value(here.store.get_perms(here("x"))),
        await code(here.store.set_perms(here("x"), [("n", here.domid)])),
    ]
    return " ".join(seen)


@case("ENOENT")
async def what_is_not_below_anything_is_enoent(here):
    return await value(here.store.read(here("x/y/z")))


@case("''")
async def mkdir_makes_an_empty_node(here):
    await here.store.mkdir(here("x"))
    return "'%s'" % await value(here.store.read(here("x")))


@case("ok b")
async def mkdir_makes_missing_parents(here):
    made = await code(here.store.mkdir(here("a/b/c")))
    return made + " " + await listing(here.store.directory(here("a")))


@case("ok value")
async def mkdir_leaves_a_node_as_it_is(here):
    await here.store.write(here("x"), "value")
    made = await code(here.store.mkdir(here("x")))
    return made + " " + await value(here.store.read(here("x")))


@case("empty")
async def directory_of_a_leaf_is_empty(here):
    await here.store.write(here("x"), "value")
    return await listing(here.store.directory(here("x")))


@case("a b c")
async def directory_gives_the_children_s_names(here):
    for name in ("a", "b", "c", "a/below"):
        await here.store.write(here(name), "")
    return await listing(here.store.directory(here.base))


@case("all", None)
async def directory_larger_than_a_payload_is_whole(here):
    names = await here.store.directory(stage.path("many"))
    return "all" if sorted(names) == sorted(stage.many()) else "%d names" % len(names)


@case(None, "all")
async def directory_larger_than_a_payload_is_whole_to_domain_0(here):
    for name in stage.many():
        await here.store.write(here(name), "")
    names = await here.store.directory(here.base)
    return "all" if sorted(names) == sorted(stage.many()) else "%d names" % len(names)


@case("ok ENOENT ENOENT")
async def rm_removes_all_below(here):
    await here.store.write(here("a/b/c"), "value")
    gone = await code(here.store.rm(here("a")))
    deep = await value(here.store.read(here("a/b/c")))
    return gone + " " + deep + " " + await value(here.store.read(here("a")))


@case("ok")
async def rm_of_what_is_not_there_is_no_error(here):
    return await code(here.store.rm(here("x")))


@case("ENOENT")
async def rm_without_a_parent_is_enoent(here):
    return await code(here.store.rm(here("x/y")))


@case("b")
async def rm_leaves_neighbours_alone(here):
    await here.store.write(here("a"), "")
    await here.store.write(here("b"), "")
    await here.store.rm(here("a"))
    return await listing(here.store.directory(here.base))


@case(None, "EINVAL")
async def rm_of_the_root_is_refused(here):
    return await code(here.store.rm("/"))
