"""`pvdump xenstored`: a store on a unix socket, without a Xen.

Registered by the command line. The rule: it stays in the foreground until SIGINT or SIGTERM, then
removes its socket. Messages and traces go to standard error.
"""

from __future__ import annotations

import argparse

from xenpv import abi
from xenpv.xenstore import wire

from ..arguments import file_name
from ..service.signals import signals_into
from ..service.sockets import SocketRefused
from ..streams import complain
from .server import FEATURES, Xenstored
from .unix import UnixTransport

NAMES = {
    "reconnection": abi.XENSTORE_SERVER_FEATURE_RECONNECTION,
    "error": abi.XENSTORE_SERVER_FEATURE_ERROR,
    "watchdepth": wire.SERVER_FEATURE_WATCHDEPTH,
}
DESCRIPTION = """\
Serve an empty xenstore on a unix socket until SIGINT or SIGTERM. Every client is domain 0. Xen's
own tools find it by XENSTORED_PATH:

    pvdump xenstored --socket /tmp/store &
    XENSTORED_PATH=/tmp/store xenstore-write /tool/hello world

There is no Xen: a domain that a client introduces counts as introduced, fires the watches and can
be asked for, but has no ring."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument(
        "--socket", type=file_name, required=True, metavar="PATH", help="made, mode 0600"
    )
    parser.add_argument("--trace", action="store_true", help="print each packet")
    parser.add_argument(
        "--without",
        action="append",
        choices=sorted(NAMES),
        default=[],
        metavar="FEATURE",
        help="do not offer reconnection, error or watchdepth",
    )


def run(options: argparse.Namespace) -> int:
    """Serve a unix socket until a signal. Returns the exit code."""
    features = FEATURES & ~sum(NAMES[name] for name in set(options.without))
    server = Xenstored(features)
    if options.trace:
        server.trace = server.log
    try:
        with UnixTransport(server, options.socket) as unix, signals_into(unix.stop_fd):
            server.log(f"listening on {options.socket}")
            unix.run()
    except SocketRefused as error:
        complain("xenstored", str(error))
        return 1
    return 0
