"""A packet as a line of text.

Used by `pvdump xenstored --trace` and by tests. The rule: each packet gives one line, whatever it
holds. A NUL is shown as |, an unprintable byte as \\xNN, and a long payload is cut.
"""

from __future__ import annotations

from xenpv import abi
from xenpv.xenstore import wire
from xenpv.xenstore.wire import Packet

PAYLOAD_SHOWN = 120  # characters
NAMES = {
    abi.XS_CONTROL: "CONTROL",
    abi.XS_DIRECTORY: "DIRECTORY",
    abi.XS_READ: "READ",
    abi.XS_GET_PERMS: "GET_PERMS",
    abi.XS_WATCH: "WATCH",
    abi.XS_UNWATCH: "UNWATCH",
    abi.XS_TRANSACTION_START: "TRANSACTION_START",
    abi.XS_TRANSACTION_END: "TRANSACTION_END",
    abi.XS_INTRODUCE: "INTRODUCE",
    abi.XS_RELEASE: "RELEASE",
    abi.XS_GET_DOMAIN_PATH: "GET_DOMAIN_PATH",
    abi.XS_WRITE: "WRITE",
    abi.XS_MKDIR: "MKDIR",
    abi.XS_RM: "RM",
    abi.XS_SET_PERMS: "SET_PERMS",
    abi.XS_WATCH_EVENT: "WATCH_EVENT",
    abi.XS_ERROR: "ERROR",
    abi.XS_IS_DOMAIN_INTRODUCED: "IS_DOMAIN_INTRODUCED",
    abi.XS_RESUME: "RESUME",
    abi.XS_SET_TARGET: "SET_TARGET",
    abi.XS_RESET_WATCHES: "RESET_WATCHES",
    abi.XS_DIRECTORY_PART: "DIRECTORY_PART",
    wire.XS_GET_FEATURE: "GET_FEATURE",
    wire.XS_SET_FEATURE: "SET_FEATURE",
    wire.XS_GET_QUOTA: "GET_QUOTA",
    wire.XS_SET_QUOTA: "SET_QUOTA",
}


def line(direction: str, client: str, packet: Packet) -> str:
    """Make the line of a packet. direction: "<" from the client, ">" to it."""
    name = NAMES.get(packet.type, f"type {packet.type}")
    text = shown(packet.payload)
    return f"{client} {direction} {name} req {packet.req_id} tx {packet.tx_id} {text}".rstrip()


def shown(payload: bytes) -> str:
    """Return bytes as printable ASCII, cut to PAYLOAD_SHOWN characters."""
    text = "".join(
        "|" if byte == 0 else chr(byte) if 32 <= byte < 127 and byte != 0x5C else f"\\x{byte:02x}"
        for byte in payload[: PAYLOAD_SHOWN + 1]
    )
    if len(text) <= PAYLOAD_SHOWN:
        return text
    return f"{text[:PAYLOAD_SHOWN]}... ({len(payload)} bytes)"
