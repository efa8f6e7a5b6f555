"""`pvdump blkback run | attach | detach | show`: disks for guests, from this domain 0.

Called by the command line. The rules: `run` ends by SIGINT, by SIGTERM or with its store; guests
then wait for the next `run`, which goes on where it stood. `attach` makes nodes only for a sink
that `run` can open.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import os
import sys
import time
from pathlib import Path

from xenpv.errors import XenError

from ..arguments import disk_name, domid, file_name, sink_name
from ..service import foreground
from ..streams import complain
from ..watches.dispatcher import Dispatcher
from ..watches.server import StatusError, StatusServer, ask
from ..xenstore.store import Store
from ..xenstore.stream import default_path
from . import sink
from .attach import AttachError, attach, detach
from .backendstore import BackendStore
from .claim import InUse
from .host import Host
from .ports import Stalled
from .processlock import LockError, ProcessLock
from .status import Status, text

LOCK = Path("/run/pvdump-blkback.lock")
SWITCH_SECONDS = 0.0005  # a worker that computes lets another one run after it
GARBAGE = 20_000  # objects between two garbage collections; a request leaves no garbage
LEAVING_SECONDS = 3.0  # in which `run` closes a sink that was detached

DESCRIPTION = """\
Serve disks to guests, each with a worker that no other guest can delay. Give a disk with `attach`
and take it away with `detach`; it is a file, a block device, or the export of an NBD server:

  pvdump blkback run --status /run/blkback &
  pvdump blkback attach 3 xvdb /srv/disk.img
  pvdump blkback attach 3 xvdc 'nbd+unix:///?socket=/run/nbd'
  pvdump blkback detach 3 xvdc"""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    run = actions.add_parser("run", help="serve the disks that are attached now and later")
    run.add_argument(
        "--status", type=file_name, metavar="SOCKET", help="make this socket, for `show`"
    )
    give = actions.add_parser("attach", help="give a guest a disk")
    take = actions.add_parser("detach", help="take a disk away from a guest")
    for sub in (run, give, take):
        foreground.add_store(sub)
    for sub in (give, take):
        sub.add_argument("domid", type=domid, metavar="DOMID")
        sub.add_argument("name", type=disk_name, metavar="VDEV", help="such as xvdb")
    give.add_argument("sink", type=sink_name, metavar="FILE|DEVICE|NBD-URI")
    give.add_argument("--readonly", action="store_true", help="the guest may not write to it")
    give.add_argument(
        "--shared", action="store_true", help="give it though another guest or dom0 uses it"
    )
    take.add_argument("--force", action="store_true", help="do not wait for the guest to close it")
    show = actions.add_parser("show", help="show the disks of a running process")
    show.add_argument("socket", type=file_name, metavar="SOCKET")
    show.add_argument("--json", action="store_true", help="all fields")


def run(options: argparse.Namespace) -> int:
    """Run a subcommand. Returns the exit code."""
    try:
        if options.action == "run":
            return serve(options)
        if options.action == "show":
            return show(options)
        with Store(options.store or default_path()) as store:
            if options.action == "attach":
                give(store, options)
            else:
                detach(store, options.domid, options.name, options.force)
        return 0
    except (XenError, StatusError, AttachError, LockError) as error:
        complain("blkback", str(error))
        return 1


def give(store: Store, options: argparse.Namespace) -> None:
    """Check the sink and attach it. Raises AttachError, XenError."""
    params = options.sink
    if not params.startswith(sink.NBD_SCHEMES):
        # `run` has another working directory.
        params = os.path.abspath(params)  # noqa: PTH100 - Path.absolute() keeps ".."
    until = time.monotonic() + LEAVING_SECONDS
    while True:
        try:
            sink.check(params, options.readonly, options.shared, options.store)
            break
        except InUse as error:
            if time.monotonic() > until:
                raise AttachError(f"{params}: {error}") from None
            time.sleep(0.1)
        except Stalled as error:
            raise AttachError(f"{params}: {error}") from None
        except OSError as error:
            raise AttachError(f"{params}: {error.strerror}") from None
    attach(store, options.domid, options.name, params, options.readonly, options.shared)


def show(options: argparse.Namespace) -> int:
    """Print what a process says on its status socket. Returns the exit code. Raises StatusError."""
    status = ask(options.socket, Status)
    print(json.dumps(status.json(), indent=2) if options.json else text(status))
    return 0


def serve(options: argparse.Namespace) -> int:
    """Serve disks until told to end. Returns the exit code. Raises LockError, XenError."""
    try:
        from .dom0 import Xen

        xen = Xen()
    except (ImportError, OSError) as error:
        why = str(error).partition(".  Additionally")[0]  # where cffi looked besides
        complain("blkback", f"{why}; python3-cffi, libxenevtchn1 and libxengnttab1 are needed")
        return 1
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.freeze()
    gc.set_threshold(GARBAGE)

    def begin(store: Store, stack: contextlib.ExitStack) -> None:
        dispatcher = Dispatcher(store)
        dispatcher.start()
        host = Host(dispatcher, BackendStore(store), xen)
        stack.callback(host.close)
        stack.callback(dispatcher.close)
        if options.status:
            stack.enter_context(StatusServer(options.status, host.status))

    with ProcessLock(LOCK):
        return foreground.serve("blkback", options.store, begin)
