"""Cases: which paths are paths."""

from xenpv import abi

from .case import case, code, in_turn, value


async def write(here, path):
    """Write a node without the client's own checks. Returns "ok" or the error's code."""
    return await here.raw(abi.XS_WRITE, path + b"\0value")


@case("EINVAL")
async def the_empty_path_is_forbidden(here):
    return await here.raw(abi.XS_READ, b"\0")


@case("EINVAL")
async def a_trailing_slash_is_forbidden(here):
    return await write(here, here("x/").encode())


@case("EINVAL")
async def a_doubled_slash_is_forbidden(here):
    return await write(here, here("x//y").encode())


@case("EINVAL")
async def a_doubled_slash_at_the_start_is_forbidden(here):
    return await write(here, b"//" + here("x").encode())


@case("ok ok ok ok")
async def letters_digits_hyphen_underscore_and_at_are_allowed(here):
    return await in_turn(
        [write(here, here(name).encode()) for name in ("Az09", "a-b", "a_b", "a@b")]
    )


@case("EINVAL EINVAL EINVAL EINVAL EINVAL EINVAL")
async def other_characters_are_forbidden(here):
    names = ("a b", "a.b", "a+b", "a,b", "a%b", "a\x7f")
    return await in_turn([write(here, here(name).encode()) for name in names])


@case("EINVAL")
async def a_colon_is_forbidden(here):
    return await write(here, here("a:b").encode())


@case("EINVAL EINVAL")
async def bytes_over_127_are_forbidden(here):
    first = await write(here, here("x").encode() + b"\xc3\xa4")
    return first + " " + await write(here, here("x").encode() + b"\xff")


@case("ok EINVAL", None)
async def a_relative_path_has_up_to_2048_bytes(here):
    begin = here.base.encode() + b"/"
    longest = begin + b"x" * (abi.XENSTORE_REL_PATH_MAX - len(begin))
    return await write(here, longest) + " " + await write(here, longest + b"x")


@case("ENOENT EINVAL", None)
async def a_relative_path_to_read_has_up_to_2048_bytes(here):
    longest = b"x" * abi.XENSTORE_REL_PATH_MAX
    first = await here.raw(abi.XS_READ, longest + b"\0")
    return first + " " + await here.raw(abi.XS_READ, longest + b"x\0")


@case(None, "ok EINVAL")
async def an_absolute_path_has_up_to_3072_bytes(here):
    begin = here.base.encode() + b"/"
    longest = begin + b"x" * (abi.XENSTORE_ABS_PATH_MAX - len(begin))
    return await write(here, longest) + " " + await write(here, longest + b"x")


@case("EINVAL")
async def an_absolute_path_over_3072_bytes_is_forbidden(here):
    return await here.raw(abi.XS_READ, b"/" + b"x" * abi.XENSTORE_ABS_PATH_MAX + b"\0")


@case("value")
async def a_relative_path_begins_at_the_domain_s_own(here):
    await here.store.write("data/relative", "value")
    home = await here.store.get_domain_path(here.domid)
    seen = await value(here.store.read(home + "/data/relative"))
    await here.store.rm("data/relative")
    return seen


@case("EINVAL")
async def a_special_name_is_no_node(here):
    return await code(here.store.write("@introduceDomain/x", "value"))
