"""Cases: domains, and what only domain 0 may."""

from xenpv import abi
from xenpv.xenstore import wire

from .case import case, code, in_turn, value

NOBODY = 30000


@case("/local/domain/7 /local/domain/7")
async def a_domain_s_path_is_known(here):
    raw = await here.store.request(abi.XS_GET_DOMAIN_PATH, b"007\0", "get_domain_path 007")
    return await value(here.store.get_domain_path(7)) + " " + raw[:-1].decode()


@case("EACCES EACCES", "True False")
async def domain_0_knows_who_is_introduced(here):
    mine = await value(here.store.is_domain_introduced(here.domid))
    return mine + " " + await value(here.store.is_domain_introduced(NOBODY))


@case("EACCES EACCES EACCES EACCES", None)
async def a_guest_may_not_introduce_or_release(here):
    seen = [
        await code(here.store.introduce(NOBODY, 1, 1)),
        await code(here.store.release(here.domid)),
        await code(here.store.resume(here.domid)),
        await code(here.store.set_target(here.domid, 0)),
    ]
    return " ".join(seen)


@case("EACCES EACCES EACCES", None)
async def a_guest_may_not_control(here):
    return await in_turn(
        [here.raw(abi.XS_CONTROL, words) for words in (b"", b"help\0", b"print\0x\0")]
    )


@case("ok", None)
async def a_guest_may_ask_for_its_features(here):
    return await here.raw(wire.XS_GET_FEATURE, b"")


@case("EACCES EACCES", None)
async def a_guest_may_not_ask_for_another_s_features(here):
    other = await code(here.store.get_feature(0))
    return other + " " + await code(here.store.set_feature(here.domid, 0))


@case("EACCES EACCES EACCES", None)
async def a_guest_may_not_see_or_set_quotas(here):
    seen = [
        await code(here.store.get_quota()),
        await code(here.store.get_quota("watches")),
        await code(here.store.set_quota("watches", 1)),
    ]
    return " ".join(seen)


@case(None, "ENOENT ENOENT ENOENT")
async def a_domain_that_is_not_introduced_cannot_be_released(here):
    seen = [
        await code(here.store.release(NOBODY)),
        await code(here.store.resume(NOBODY)),
        await code(here.store.set_target(NOBODY, NOBODY + 1)),
    ]
    return " ".join(seen)


@case(None, "EINVAL EINVAL")
async def domain_0_cannot_be_introduced_or_released(here):
    first = await code(here.store.introduce(0, 1, 1))
    return first + " " + await code(here.store.release(0))


@case(None, "ok")
async def domain_0_may_control(here):
    return await code(here.store.control("help"))


@case(None, "EINVAL")
async def an_unknown_command_is_refused(here):
    return await code(here.store.control("no-such-command"))


@case(None, "bits 1 2 4")
async def the_server_s_features_are_told(here):
    offered = await here.store.get_feature()
    return "bits " + " ".join(str(bit) for bit in (1, 2, 4, 8) if offered & bit)


@case(None, "4, then 0")
async def a_domain_s_features_are_chosen_before_it_is_introduced(here):
    await here.store.set_feature(NOBODY, 4)
    first = await value(here.store.get_feature(NOBODY))
    await here.store.set_feature(NOBODY, 0)
    return first + ", then " + await value(here.store.get_feature(NOBODY))


@case(None, "EINVAL")
async def a_feature_that_is_not_there_cannot_be_chosen(here):
    return await code(here.store.set_feature(NOBODY, 1 << 20))


@case(None, "nodes watches transactions node-size permissions")
async def the_quotas_are_named(here):
    named = await here.store.get_quota()
    wanted = ("nodes", "watches", "transactions", "node-size", "permissions")
    return " ".join(name for name in wanted if name in named)


@case(None, "500, then as before")
async def a_quota_can_be_set(here):
    before = await here.store.get_quota("watches")
    await here.store.set_quota("watches", 500)
    seen = await value(here.store.get_quota("watches"))
    await here.store.set_quota("watches", before)
    again = await here.store.get_quota("watches")
    return seen + (", then as before" if again == before else ", then another")


@case(None, "EINVAL EINVAL")
async def a_quota_that_is_not_there_is_refused(here):
    first = await code(here.store.get_quota("no-such-quota"))
    return first + " " + await code(here.store.set_quota("no-such-quota", 1))
