"""`pvdump daemon`: the daemon of a dom0, pvdumpd, in the foreground.

Called by the command line, as root; its unit is pvdumpd.service. The rule: the process of root's is
forked first, and the daemon then gives up root where --user names whom to be: it has a connection
to xenstore by then, and no hypercalls.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pwd
import signal
import time
from pathlib import Path

from pvfw.errors import DumpError
from xenpv.errors import XenError

from ..arguments import file_name
from ..blkback.processlock import LockError, ProcessLock
from ..guest.doctor import require_root
from ..service import foreground
from ..streams import complain
from ..watches.dispatcher import Dispatcher
from ..watches.server import StatusError, StatusServer
from ..xenstore.store import Store
from . import helper
from .daemon import Daemon
from .events import Events
from .hypercalls import PRIVCMD, Hypercalls
from .ledger import Ledger
from .toolstack import Xl
from .verbs import LEDGER, Verbs

RUN = Path("/run/pvdumpd")
STATE = Path("/var/lib/pvdumpd")
LOCK = RUN / "lock"
LOCK_SECONDS = 60.0
SOCKET = "status"  # in RUN/daemon, which is the daemon's
START = "systemctl enable --now pvdumpd"  # what a person types
DESCRIPTION = """\
Serve a dom0: when a guest's kernel has panicked, have its crash kernel start. HVM guests under xl
start it ten seconds earlier. PVH guests under xl start it at all; theirs needs
on_soft_reset="preserve", which `pvdump enable` writes. docs/dom0.md has the whole."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    foreground.add_store(parser)
    parser.add_argument(
        "--user", type=user, metavar="NAME", help="be this user, without root's rights"
    )
    parser.add_argument(
        "--state",
        type=file_name,
        default=STATE,
        metavar="FOLDER",
        help=f"where events are written (default: {STATE})",
    )


def user(name: str) -> tuple[int, int]:
    """Read a user's name or number. Raises ArgumentTypeError."""
    try:
        found = pwd.getpwnam(name)
        return found.pw_uid, found.pw_gid
    except KeyError:
        if name.isascii() and name.isdecimal():
            return int(name), int(name)
        raise argparse.ArgumentTypeError(f"{name[:40]!r} is no user") from None


def run(options: argparse.Namespace) -> int:
    """Serve until told to end. Returns the exit code. Raises DumpError, OSError."""
    if not Path(PRIVCMD).exists():
        raise DumpError(f"this is no dom0: there is no {PRIVCMD}")
    require_root("daemon")
    RUN.mkdir(mode=0o755, exist_ok=True)
    try:
        with lock():
            return serve(options)
    except (helper.HelperError, LockError, StatusError, XenError) as error:
        complain("daemon", str(error))
        return 1


def lock() -> ProcessLock:
    """Take the lock. The helper of a daemon that was killed has it until its verbs are done.

    Raises: LockError.
    """
    until = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            return ProcessLock(LOCK, "`pvdump daemon` serves this dom0")
        except LockError:
            if time.monotonic() > until:
                raise
            time.sleep(0.1)


def serve(options: argparse.Namespace) -> int:
    """Serve, with the lock. Returns the exit code. Raises HelperError, StatusError, XenError."""
    ended: list[str] = []
    connection = helper.begin(lambda: Verbs(Hypercalls(), Ledger(LEDGER), Xl()))

    def begin(store: Store, stack: contextlib.ExitStack) -> None:
        for folder in (RUN / "daemon", options.state):
            folder.mkdir(mode=0o755, parents=True, exist_ok=True)
            if options.user:
                os.chown(folder, *options.user)
        if options.user:
            give_up_root(*options.user)

        def gone() -> None:
            ended.append(helper.GONE)
            stop()

        asked = helper.Helper(connection, gone)
        stack.callback(asked.close)
        dispatcher = Dispatcher(store)
        dispatcher.start()
        daemon = Daemon(dispatcher, store, asked, Events(options.state))
        stack.callback(daemon.close)
        stack.callback(dispatcher.close)
        stack.enter_context(StatusServer(RUN / "daemon" / SOCKET, daemon.status))

    code = foreground.serve("daemon", options.store, begin)
    if ended:
        complain("daemon", ended[0])
    return 1 if ended else code


def give_up_root(uid: int, gid: int) -> None:
    """Be a user without root's rights, in all threads."""
    os.setgroups([])
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


def stop() -> None:
    """End this process as SIGTERM does."""
    os.kill(os.getpid(), signal.SIGTERM)
