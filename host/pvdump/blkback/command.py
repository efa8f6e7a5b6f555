"""`pvdump blkback run | attach | detach | show`: disks for guests, from this domain 0.

Called by the command line. The rule: `run` ends by SIGINT, by SIGTERM or with its store; guests
then wait for the next `run`, which goes on where it stood.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import sys

from xenpv.errors import XenError

from ..arguments import domid, file_name
from ..service import foreground
from ..watches.dispatcher import Dispatcher
from ..watches.server import StatusError, StatusServer, ask
from ..xenstore.store import Store
from ..xenstore.stream import default_path
from .attach import AttachError, attach, detach
from .host import Host
from .nodes import Nodes
from .status import Status, text

SWITCH_SECONDS = 0.0005  # a worker that computes lets another one go on
GARBAGE = 20_000  # objects made between two looks for garbage, of which a request leaves none

DESCRIPTION = """\
Serve disks to guests, each by a worker that no other guest can hold up. A disk is given with
`attach` and taken away with `detach`; it is a file, a block device, or what an NBD server has:

  pvdump blkback run --status /run/blkback &
  pvdump blkback attach 3 xvdb /srv/disk.img
  pvdump blkback attach 3 xvdc 'nbd+unix:///?socket=/run/nbd'
  pvdump blkback detach 3 xvdc"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    run = actions.add_parser("run", help="serve the disks, those that are there and those to come")
    run.add_argument(
        "--status", type=file_name, metavar="SOCKET", help="make this socket, for `show`"
    )
    give = actions.add_parser("attach", help="give a guest a disk")
    take = actions.add_parser("detach", help="take a disk away from a guest")
    for sub in (run, give, take):
        foreground.add_store(sub)
    for sub in (give, take):
        sub.add_argument("domid", type=domid, metavar="DOMID")
        sub.add_argument("name", metavar="VDEV", help="such as xvdb")
    give.add_argument("sink", metavar="FILE|DEVICE|NBD-URI")
    give.add_argument("--readonly", action="store_true", help="the guest may not write to it")
    take.add_argument("--force", action="store_true", help="do not wait for the guest")
    show = actions.add_parser("show", help="show the disks of a running process")
    show.add_argument("socket", type=file_name, metavar="SOCKET")
    show.add_argument("--json", action="store_true", help="all fields")


def run(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    try:
        if options.action == "run":
            return serve(options)
        if options.action == "show":
            return show(options)
        with Store(options.store or default_path()) as store:
            if options.action == "attach":
                attach(store, options.domid, options.name, options.sink, options.readonly)
            else:
                detach(store, options.domid, options.name, options.force)
        return 0
    except (XenError, StatusError, AttachError) as error:
        print(f"pvdump blkback: {error}", file=sys.stderr)
        return 1


def show(options: argparse.Namespace) -> int:
    status = ask(options.socket, Status)
    print(json.dumps(status.json(), indent=2) if options.json else text(status))
    return 0


def serve(options: argparse.Namespace) -> int:
    try:
        from .dom0 import Xen

        xen = Xen()
    except (ImportError, OSError) as error:
        print(
            f"pvdump blkback: {error}; python3-cffi, libxenevtchn1 and libxengnttab1 are needed",
            file=sys.stderr,
        )
        return 1
    logging.basicConfig(format="pvdump blkback: %(message)s")
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(GARBAGE)

    def begin(store: Store, stack: contextlib.ExitStack) -> None:
        dispatcher = Dispatcher(store)
        dispatcher.start()
        host = Host(dispatcher, Nodes(store), xen)
        stack.callback(host.close)
        stack.callback(dispatcher.close)
        if options.status:
            stack.enter_context(StatusServer(options.status, host.status))

    return foreground.serve("blkback", options.store, begin)
