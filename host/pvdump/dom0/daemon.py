"""The daemon: sees guests that are down for a soft reset, and does what their toolstack does not.

Made by command.py, over the dispatcher of watches: each guest has its own queue, so that one whose
end takes long holds up no other. The rules:
- Xen says how a domain stands, xenstore only when to look. At the start, and whenever a domain
  comes or goes down, each is looked at; so those that went down before the start are taken up.
- An HVM guest is reset by libxl, which is spared its wait (devices.py). A PVH guest that is
  preserved is reset here, and its end is seen to (verbs.py).
- Nothing is kept here that matters: what was begun is in the helper's ledger.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Optional

from xenpv import abi
from xenpv.errors import XenError

from ..service.complaints import Complaints
from ..watches.dispatcher import NOBODY, Dispatcher, Subscription
from ..watches.domains import INTRODUCED, RELEASED, ROOT
from ..watches.domains import domid as parse_domid
from ..watches.queue import Event
from ..xenstore.store import Store
from . import devices
from .configuration import PRESERVE
from .events import Events
from .helper import Helper, HelperError
from .ledger import ENDED, ENDING, RESETTING
from .softreset import introduce
from .status import Row, Status

NAME = "pvdumpd"
LOOK_SECONDS = 2.0  # between two looks at guests whose crash kernel runs
LISTED = 256  # last events of guests for the status
log = logging.getLogger(__name__)


class Guest:
    """What is known of a domain.

    Attributes:
        uuid: of the domain with this number now.
        name, type: as libxl has them; "" where it has none.
        down: it was seen down for a soft reset, and has not run since.
        seen_to: what was to be done then was done.
        doing: what is being done or was done last, for the status.
    """

    def __init__(self, uuid: str, name: str, type: str) -> None:
        self.uuid, self.name, self.type = uuid, name, type
        self.down = self.seen_to = False
        self.doing = ""


class Daemon:
    """Serves until the dispatcher is closed.

    Args:
        dispatcher: started.
        store: xenstore.
        helper: the process of root's.
        events: where to tell what happens.
    """

    def __init__(
        self, dispatcher: Dispatcher, store: Store, helper: Helper, events: Events
    ) -> None:
        self._dispatcher, self._store, self._helper = dispatcher, store, helper
        self._events = events
        self._complaints = Complaints(time.monotonic_ns, log.error)
        self._lock = threading.Lock()  # of the next three
        self._guests: dict[int, Guest] = {}
        self._failed: set[int] = set()  # domains that are to be looked at again
        self._looked: list[Subscription] = []
        self._closed = threading.Event()
        for path in (INTRODUCED, RELEASED):
            # A subscription's first event may come before it is known here.
            made = dispatcher.subscribe(path, lambda path, token: None, self._changed, NAME)
            with self._lock:
                self._looked.append(made)
        self._look_at_all()
        self._thread = threading.Thread(target=self._poll, name="pvdumpd-poll", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End what is not the dispatcher's; that is closed before."""
        self._closed.set()
        self._thread.join()

    def status(self) -> Status:
        """Return how each guest stands."""
        with self._lock:
            guests = sorted(self._guests.items())
        return Status([Row(n, g.uuid, g.name, g.type, g.down, g.doing) for n, g in guests])

    def _poll(self) -> None:
        """Look at guests whose crash kernel runs: not every xenstored tells of their end."""
        while not self._closed.wait(LOOK_SECONDS):
            try:
                with self._lock:
                    failed, self._failed = self._failed, set()
                reset = {record["domid"] for record in self._helper.ask("records")}
                for domid in reset | failed:
                    self._look(domid)
            except (HelperError, XenError) as error:
                self._complaints.add("poll", f"the guests that were reset: {error}")

    def _look(self, domid: int) -> None:
        with self._lock:
            looked = self._looked[-1:]
        for subscription in looked:
            subscription.look(domid)

    def _look_at_all(self) -> None:
        names = self._store.directory(ROOT, [])
        there = {domid for name in names if (domid := parse_domid(name))}  # not dom0
        with self._lock:
            gone = self._guests.keys() - there
            for domid in gone:
                del self._guests[domid]
        for domid in there:
            self._look(domid)
        # A guest that is gone from xenstore may have a record.
        for record in self._helper.ask("records"):
            if record["domid"] not in there:
                self._look(record["domid"])

    def _changed(self, event: Event) -> None:
        if event.domain is None:
            self._look_at_all()
            return
        domid = event.domain.domid
        try:
            self._attend(domid)
        except (HelperError, XenError, OSError) as error:
            self._complaints.add(domid, f"domain {domid}: {error}")
            with self._lock:
                self._failed.add(domid)

    # One guest, in its queue.

    def _attend(self, domid: int) -> None:
        """Do what is to be done for a domain as it is now."""
        info = self._helper.ask("state", domid=domid)
        records = [each for each in self._helper.ask("records") if each["domid"] == domid]
        for record in records:
            self._follow(record, info)
        if info is None or info["dying"]:
            return
        guest = self._guest(domid, info["uuid"])
        down = info["reason"] == abi.SHUTDOWN_soft_reset
        if not down:
            guest.down = guest.seen_to = False
        elif not any(each["uuid"] == guest.uuid for each in records) and not guest.seen_to:
            if not guest.down:
                guest.down = True
                self._tell("panic", domid, guest.name, type=guest.type)
            self._panicked(domid, guest)
            guest.seen_to = True

    def _guest(self, domid: int, uuid: str) -> Guest:
        with self._lock:
            known = self._guests.get(domid)
        if known is not None and known.uuid == uuid and known.name:
            return known
        found = self._helper.ask("configuration", domid=domid, uuid=uuid) or {}
        guest = Guest(uuid, found.get("name", ""), found.get("type", ""))
        with self._lock:
            known = self._guests.get(domid)
            if known is not None and known.uuid == uuid:
                known.name, known.type = guest.name, guest.type
                return known
            self._guests[domid] = guest
        return guest

    def _tell(self, event: str, domid: int, guest: str, **more: Any) -> None:
        words = " ".join(f"{key}={value}" for key, value in more.items())
        log.warning("%s: domain %d, %s %s", event, domid, guest or "without a name", words)
        with self._lock:
            known = self._guests.get(domid)
        if known is not None:
            known.doing = event
        self._events.add(event, domid, guest, **more)

    def _panicked(self, domid: int, guest: Guest) -> None:
        """See to a domain that has gone down for a soft reset."""
        if guest.type == "hvm":
            self._spare_libxl(domid, guest)
            return
        found = self._helper.ask("configuration", domid=domid, uuid=guest.uuid) or {}
        action = found.get("actions", {}).get("on_soft_reset")
        if guest.type == "pvh" and action == PRESERVE:
            self._reset(domid, guest.uuid, guest.name)
        elif guest.type == "pvh":
            why = f'on_soft_reset is "{action}": `pvdump enable` mends it'
            self._tell("lost", domid, guest.name, why=why)
        else:
            self._tell("left", domid, guest.name, why="it is no HVM or PVH guest of libxl's")

    def _reset(self, domid: int, uuid: str, name: str) -> None:
        """Reset a PVH guest, or go on with that, and start its crash kernel."""
        made = self._helper.ask("reset", domid=domid, uuid=uuid)
        if made is None:
            return
        introduce(self._store, domid, made["gfn"], made["store_port"], made["console_port"])
        ports = {key: made[key] for key in ("store_port", "console_port")}
        self._helper.ask("go", domid=domid, uuid=uuid, **ports)
        self._tell("reset", domid, name)

    def _follow(self, record: dict[str, Any], info: Optional[dict[str, Any]]) -> None:
        """Go on with a guest that was reset."""
        domid, uuid, name = record["domid"], record["uuid"], record["name"]
        there = info is not None and info["uuid"] == uuid and not info["dying"]
        if record["phase"] == RESETTING and there:
            self._reset(domid, uuid, name)
        elif (
            record["phase"] in (ENDING, ENDED) or not there or (info and info["reason"] is not None)
        ):
            done = self._helper.ask("end", domid=domid, uuid=uuid)
            if done is None:
                return
            if done["why"]:
                self._tell("failed", domid, name, why=done["why"])
            else:
                told = {key: done[key] for key in ("reason", "action", "by")}
                self._tell("end", domid, name, **told)
            self._helper.ask("forget", domid=domid, uuid=uuid)

    def _spare_libxl(self, domid: int, guest: Guest) -> None:
        """Close the disks of an HVM guest while libxl takes them away."""
        for disk in devices.find(self._store, domid):
            _Closer(self, domid, guest, disk)

    def _is_down(self, domid: int, uuid: str) -> bool:
        info = self._helper.ask("state", domid=domid)
        return bool(
            info
            and info["uuid"] == uuid
            and info["reason"] == abi.SHUTDOWN_soft_reset
            and not info["dying"]
        )


class _Closer:
    """Closes a disk when its backend begins to close; then, or when that is gone, it ends."""

    def __init__(self, daemon: Daemon, domid: int, guest: Guest, disk: devices.Disk) -> None:
        self._daemon, self._domid, self._guest, self._disk = daemon, domid, guest, disk
        self._subscribed = threading.Event()
        path = f"{disk.back}/state"

        def domain_of(changed: str, token: str) -> int:
            return domid if changed == path else NOBODY

        self._watch = daemon._dispatcher.subscribe(path, domain_of, self._changed, NAME)
        self._subscribed.set()

    def _changed(self, event: Event) -> None:
        # In the domain's queue, as the one that subscribed: it has returned by now.
        daemon = self._daemon
        store = daemon._store

        def is_down() -> bool:
            return daemon._is_down(self._domid, self._guest.uuid)

        closed = devices.close(store, self._disk, is_down)
        if closed:
            daemon._tell("closed", self._domid, self._guest.name, device=self._disk.back)
        if closed or store.find(f"{self._disk.back}/state") is None or not is_down():
            self._subscribed.wait()
            self._watch.close()
