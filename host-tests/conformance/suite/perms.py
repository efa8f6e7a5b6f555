"""Cases: who may do what. Those of a guest look at what domain 0 has staged (see stage.py)."""

from xenpv import abi

from . import stage
from .case import case, code, in_turn, listing, value


def words(perms, domid):
    """Permissions as one line; "me" is the client's own domain."""
    return " ".join(letter + ("me" if who == domid else str(who)) for letter, who in perms)


async def perms_of(here, name):
    return words(await here.store.get_perms(here(name)), here.domid)


@case("nme")
async def a_new_node_belongs_to_who_made_it(here):
    await here.store.write(here("x"), "")
    return await perms_of(here, "x")


@case("ok rme w7 b9")
async def get_gives_what_was_set(here):
    await here.store.write(here("x"), "")
    done = await code(here.store.set_perms(here("x"), [("r", here.domid), ("w", 7), ("b", 9)]))
    return done + " " + await perms_of(here, "x")


@case("nme r7")
async def a_new_node_has_its_parent_s_perms(here):
    await here.store.mkdir(here("a"))
    await here.store.set_perms(here("a"), [("n", here.domid), ("r", 7)])
    await here.store.write(here("a/b/c"), "")
    return await perms_of(here, "a/b/c")


@case("value ok")
async def the_owner_may_do_everything(here):
    await here.store.write(here("x"), "value")
    await here.store.set_perms(here("x"), [("n", here.domid), ("n", 7)])
    return await value(here.store.read(here("x"))) + " " + await code(here.store.rm(here("x")))


@case("EPERM nme", None)
async def a_guest_gives_no_node_away(here):
    await here.store.write(here("x"), "")
    done = await code(here.store.set_perms(here("x"), [("n", 0)]))
    return done + " " + await perms_of(here, "x")


@case(None, "ok n7")
async def domain_0_gives_a_node_away(here):
    await here.store.write(here("x"), "")
    done = await code(here.store.set_perms(here("x"), [("n", 7)]))
    return done + " " + await perms_of(here, "x")


@case("EINVAL EINVAL EINVAL EINVAL")
async def malformed_perms_are_refused(here):
    await here.store.write(here("x"), "")
    path = here("x").encode() + b"\0"
    return await in_turn(
        [here.raw(abi.XS_SET_PERMS, path + wrong) for wrong in (b"x1\0", b"n\0", b"nx\0", b"")]
    )


@case("5 ok, 6 ENOSPC", None)
async def a_guest_s_node_has_few_perms(here):
    await here.store.write(here("x"), "")
    perms = [("n", here.domid), ("r", 1001), ("r", 1002), ("r", 1003), ("r", 1004), ("r", 1005)]
    five = await code(here.store.set_perms(here("x"), perms[:5]))
    return "5 %s, 6 %s" % (five, await code(here.store.set_perms(here("x"), perms)))


@case("EACCES EACCES EACCES", None)
async def a_hidden_node_cannot_be_read(here):
    path = stage.path("hidden")
    seen = [
        await value(here.store.read(path)),
        await listing(here.store.directory(path)),
        await value(here.store.get_perms(path)),
    ]
    return " ".join(seen)


@case("EACCES", None)
async def what_is_not_there_below_a_hidden_node_is_hidden_too(here):
    return await value(here.store.read(stage.path("hidden/absent")))


@case("ENOENT", None)
async def what_is_not_there_below_a_readable_node_is_enoent(here):
    return await value(here.store.read(stage.path("readonly/absent")))


@case("seen EACCES EACCES EACCES EACCES", None)
async def a_read_only_node_can_only_be_read(here):
    path = stage.path("readonly")
    seen = [
        await value(here.store.read(path)),
        await code(here.store.write(path, "")),
        await code(here.store.write(path + "/new", "")),
        await code(here.store.rm(path)),
        await code(here.store.set_perms(path, [("n", here.domid)])),
    ]
    return " ".join(seen)


@case("EACCES ok EACCES", None)
async def a_write_only_node_can_only_be_written(here):
    path = stage.path("hidden/drop")
    seen = [
        await value(here.store.read(path)),
        await code(here.store.write(path, "dropped")),
        await value(here.store.read(path)),
    ]
    return " ".join(seen)


@case("seen ok ok", None)
async def both_is_both(here):
    path = stage.path("both")
    seen = [
        await value(here.store.read(path)),
        await code(here.store.write(path, "seen")),
        await code(here.store.rm(path + "/absent")),
    ]
    return " ".join(seen)


@case("EACCES", None)
async def perms_are_set_by_the_owner_only(here):
    return await code(here.store.set_perms(stage.path("both"), [("b", 0)]))


@case("seen EACCES", None)
async def the_first_entry_s_letter_is_for_everyone(here):
    path = stage.path("everyone")
    return await value(here.store.read(path)) + " " + await code(here.store.write(path, ""))


@case("EACCES EACCES", None)
async def an_entry_of_its_own_goes_before_everyone_s(here):
    path = stage.path("excepted")
    return await value(here.store.read(path)) + " " + await code(here.store.write(path, ""))


@case("EACCES EACCES EACCES", None)
async def outside_its_own_tree_a_guest_writes_nothing(here):
    home = await here.store.get_domain_path(here.domid)
    seen = [
        await code(here.store.write("/conformance", "")),
        await code(here.store.write("/local/domain/0/conformance", "")),
        await code(here.store.write(home + "/conformance", "")),
    ]
    return " ".join(seen)
