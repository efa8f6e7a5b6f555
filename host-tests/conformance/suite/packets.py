"""Cases: requests that are not as they should be, and that the next one is answered."""

from xenpv import abi
from xenpv.xenstore import wire

from .case import case, in_turn, value

INVALID = 0xFFFF
RESTRICT = 20


async def refused(here, types, payload):
    """Whether each type is refused with this payload; which error that is, is left open."""
    seen = []
    for type in types:
        seen.append("ok" if await here.raw(type, payload) == "ok" else "refused")
    return " ".join(seen)


async def each(here, type, *payloads):
    """What each payload is answered with."""
    return await in_turn([here.raw(type, payload) for payload in payloads])


@case("ENOSYS ENOSYS ENOSYS")
async def unknown_types_are_enosys(here):
    return await in_turn([here.raw(type, b"x\0") for type in (RESTRICT, 1000, INVALID)])


@case("ENOSYS ENOSYS")
async def a_server_s_types_are_enosys(here):
    return await in_turn([here.raw(type, b"x\0") for type in (abi.XS_WATCH_EVENT, abi.XS_ERROR)])


@case("refused refused refused refused refused refused")
async def a_path_ends_with_nul(here):
    path = here.base.encode()
    types = (abi.XS_READ, abi.XS_WRITE, abi.XS_MKDIR, abi.XS_RM, abi.XS_DIRECTORY)
    types += (abi.XS_GET_PERMS,)
    return await refused(here, types, path)


@case("refused refused refused refused refused refused refused refused")
async def a_request_without_its_words_is_refused(here):
    types = (abi.XS_READ, abi.XS_WRITE, abi.XS_MKDIR, abi.XS_RM, abi.XS_DIRECTORY)
    types += (abi.XS_GET_PERMS, abi.XS_SET_PERMS, abi.XS_WATCH)
    return await refused(here, types, b"")


@case("refused refused refused")
async def a_request_with_a_word_too_many_is_refused(here):
    words = here.base.encode() + b"\0x\0"
    types = (abi.XS_READ, abi.XS_DIRECTORY, abi.XS_GET_PERMS)
    return await refused(here, types, words)


@case("EINVAL EINVAL EINVAL")
async def a_watch_is_a_path_and_a_token(here):
    path = here.base.encode() + b"\0"
    return await each(here, abi.XS_WATCH, path, path + b"token", b"\0token\0")


@case("EINVAL EINVAL")
async def an_unwatch_is_a_path_and_a_token(here):
    path = here.base.encode() + b"\0"
    return await each(here, abi.XS_UNWATCH, path, path + b"token")


@case("EINVAL EINVAL")
async def a_transaction_s_end_is_a_word(here):
    return await each(here, abi.XS_TRANSACTION_END, b"", b"T")


@case("EINVAL EINVAL")
async def a_domain_s_path_needs_a_domain(here):
    return await each(here, abi.XS_GET_DOMAIN_PATH, b"", b"7")


@case(None, "EINVAL EINVAL")
async def being_introduced_needs_a_domain(here):
    return await each(here, abi.XS_IS_DOMAIN_INTRODUCED, b"", b"7")


@case("EINVAL EINVAL EINVAL")
async def a_part_of_a_directory_needs_an_offset(here):
    path = here.base.encode() + b"\0"
    return await each(here, abi.XS_DIRECTORY_PART, b"", path, path + b"0")


@case("ok")
async def a_part_beyond_a_directory_s_end_is_empty(here):
    path = here.base.encode() + b"\0"
    return await each(here, abi.XS_DIRECTORY_PART, path + b"1000\0")


@case("value")
async def after_all_that_a_read_is_answered(here):
    await here.store.write(here("x"), "value")
    for type in range(wire.XS_SET_QUOTA + 1):
        # Not those that would do something when they are whole.
        if type not in (abi.XS_RM, abi.XS_RESET_WATCHES, abi.XS_TRANSACTION_START):
            for payload in (b"", b"\0", b"\0\0\0", b"\xff" * 40, b"/" * 4096):
                await here.raw(type, payload)
    return await value(here.store.read(here("x")))
