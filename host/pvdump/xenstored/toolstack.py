"""The toolstack's requests: domains that come and go, targets, features, quotas, control.

Called by requests.py for domain 0 only. The rule: this file parses the words, the server acts.
Source: Xen docs/misc/xenstore.txt; tools/xenstored of Xen 4.17 for the replies to CONTROL.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from xenpv import abi
from xenpv.text import decimal
from xenpv.xenstore import wire
from xenpv.xenstore.wire import Packet

from .domain import DOM0, QUOTAS, DomainRecord, StoreError
from .trace import shown

if TYPE_CHECKING:
    from .server import Xenstored

OK = b"OK\0"
DOMID_MAX = 65535
U32_MAX = (1 << 32) - 1
U64_MAX = (1 << 64) - 1


def number(word: bytes, most: int = U32_MAX) -> int:
    """Parse a decimal number. Raises StoreError EINVAL."""
    # Leading zeros count for nothing, as in C xenstored.
    found: int | None = decimal(word.lstrip(b"0") or word[-1:], 0, most)
    if found is None:
        raise StoreError("EINVAL")
    return found


def domid(word: bytes) -> int:
    """Parse a domid. Raises StoreError EINVAL."""
    return number(word, DOMID_MAX)


def _words(packet: Packet, least: int, most: int | None = None) -> list[bytes]:
    """Return the strings that end with a NUL, from least to most. Raises StoreError EINVAL."""
    found = packet.payload.split(b"\0")[:-1]
    if len(found) < least or (most is not None and len(found) > most):
        raise StoreError("EINVAL")
    return found


def _guest(packet: Packet) -> int:
    """Return the domid of a request that is not for domain 0."""
    found = domid(_words(packet, 1, 1)[0])
    if found == DOM0:
        raise StoreError("EINVAL")
    return found


def _introduce(server: Xenstored, who: DomainRecord, packet: Packet) -> bytes:
    found = _words(packet, 3)
    gfn, port = number(found[1], U64_MAX), number(found[2])
    if port == 0 or domid(found[0]) == DOM0:
        raise StoreError("EINVAL")
    server.introduce_at(domid(found[0]), gfn, port)
    return OK


def _release(server: Xenstored, who: DomainRecord, packet: Packet) -> bytes:
    server.release(_guest(packet))
    return OK


def _is_domain_introduced(server: Xenstored, who: DomainRecord, packet: Packet) -> bytes:
    found = domid(_words(packet, 1, 1)[0])
    domain = who if found == abi.DOMID_SELF else server.domains.get(found)
    return b"T\0" if domain is not None and domain.introduced else b"F\0"


def _resume(server: Xenstored, who: DomainRecord, packet: Packet) -> bytes:
    server.introduced(_guest(packet)).shut_down = False
    return OK


def _set_target(server: Xenstored, who: DomainRecord, packet: Packet) -> bytes:
    found = _words(packet, 2)
    domain, target = server.introduced(domid(found[0])), server.introduced(domid(found[1]))
    domain.target = target.domid
    return OK


def _set_feature(server: Xenstored, who: DomainRecord, packet: Packet) -> bytes:
    found = _words(packet, 2, 2)
    domain, features = server.domain(domid(found[0])), number(found[1])
    if domain.introduced:
        raise StoreError("EBUSY")
    if features & ~server.features:
        raise StoreError("EINVAL")
    domain.features = features
    return OK


def _quota_name(word: bytes) -> str:
    name = word.decode("ascii", "replace")
    if name not in QUOTAS:
        raise StoreError("EINVAL")
    return name


def _get_quota(server: Xenstored, who: DomainRecord, packet: Packet) -> bytes:
    found = _words(packet, 0, 2)
    if not found:
        return " ".join(QUOTAS).encode() + b"\0"
    quotas = server.quotas if len(found) == 1 else server.known(domid(found[0])).quotas
    return b"%d\0" % quotas[_quota_name(found[-1])]


def _set_quota(server: Xenstored, who: DomainRecord, packet: Packet) -> bytes:
    found = _words(packet, 2, 3)
    name, value = _quota_name(found[-2]), number(found[-1])
    quotas = server.quotas if len(found) == 2 else server.domain(domid(found[0])).quotas
    quotas[name] = value
    return OK


# CONTROL.


def _control(server: Xenstored, who: DomainRecord, packet: Packet) -> bytes:
    command, *arguments = _words(packet, 1)
    if command not in CONTROLS:
        raise StoreError("EINVAL")
    return CONTROLS[command][0](server, arguments)


def _text(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode() + b"\0"


def _check(server: Xenstored, arguments: list[bytes]) -> bytes:
    wrong = server.tree.check()
    return _text(wrong) if wrong else OK


def _log(server: Xenstored, arguments: list[bytes]) -> bytes:
    if arguments == [b"on"]:
        server.trace = server.log
    elif arguments == [b"off"]:
        server.trace = None
    elif arguments:
        raise StoreError("EINVAL")
    else:
        return _text([f"trace: {'off' if server.trace is None else 'on'}"])
    return OK


def _print(server: Xenstored, arguments: list[bytes]) -> bytes:
    if len(arguments) != 1:
        raise StoreError("EINVAL")
    server.log(f"control: {shown(arguments[0])}")
    return OK


def _quota(server: Xenstored, arguments: list[bytes]) -> bytes:
    if not arguments:
        rows = [f"{name:17}: {server.quotas[name]:8} {q.what}" for name, q in QUOTAS.items()]
        return _text(["Quota settings:", *rows])
    if arguments[0] == b"set" and len(arguments) == 3:
        value = number(arguments[2])
        if value == 0:
            raise StoreError("EINVAL")
        server.quotas[_quota_name(arguments[1])] = value
        return OK
    if len(arguments) != 1:
        raise StoreError("EINVAL")
    domain = server.known(domid(arguments[0]))
    rows = [f"{name:17}: {used:8}" for name, used in server.usage(domain).items()]
    return _text([f"Domain {domain.domid}:", *rows])


def _help(server: Xenstored, arguments: list[bytes]) -> bytes:
    return _text([f"{name.decode():15} {usage}".rstrip() for name, (_, usage) in CONTROLS.items()])


CONTROLS: dict[bytes, tuple[Callable[[Xenstored, list[bytes]], bytes], str]] = {
    b"check": (_check, ""),
    b"log": (_log, "[on|off]"),
    b"print": (_print, "<string>"),
    b"quota": (_quota, "[set <name> <val>|<domid>]"),
    b"help": (_help, ""),
}

REQUESTS: dict[int, Callable[[Xenstored, DomainRecord, Packet], bytes]] = {
    abi.XS_CONTROL: _control,
    abi.XS_INTRODUCE: _introduce,
    abi.XS_RELEASE: _release,
    abi.XS_IS_DOMAIN_INTRODUCED: _is_domain_introduced,
    abi.XS_RESUME: _resume,
    abi.XS_SET_TARGET: _set_target,
    wire.XS_SET_FEATURE: _set_feature,
    wire.XS_GET_QUOTA: _get_quota,
    wire.XS_SET_QUOTA: _set_quota,
}
