"""What the process of root's does for pvdumpd: a closed list of verbs.

Called by helper.py, in threads, for the daemon, which has no hypercalls of its own. The rules: no
verb does anything to a domain that runs; a domain is named by number and UUID, so that the next one
of its number is not meant; each verb may be asked again after it was cut off at any moment.
Source: xen-api ocaml/xenopsd/xc/domain.ml (soft_reset), Xen xen/common/domain.c
(domain_soft_reset).
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from xenpv import abi

from . import configuration, toolstack
from .hypercalls import Hypercalls, Info
from .ledger import ENDED, ENDING, RESETTING, RUNNING, Ledger, Record

LEDGER = Path("/run/pvdumpd/guests")
XL_SECONDS = 10.0  # in which xl does what is to be done, or leaves
POLL = 0.1
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
LARGEST = {"domid": abi.DOMID_SELF}


class Refused(Exception):
    """A verb cannot be done; the message says why."""


def check(arguments: dict[str, Any]) -> None:
    """Refuse arguments that are not numbers, and a UUID that is none: it is a part of paths."""
    for name, value in arguments.items():
        if name == "uuid":
            right = isinstance(value, str) and UUID.fullmatch(value) is not None
        else:
            right = type(value) is int and 0 < value < LARGEST.get(name, 1 << 32)
        if not right:
            raise Refused(f"{name}: {str(value)[:40]!r} is none")


class Verbs:
    """The verbs.

    Args:
        hypercalls: Xen.
        ledger: what was begun.
        xl: the toolstack.
        userdata: libxl's folder.
    """

    def __init__(
        self,
        hypercalls: Hypercalls,
        ledger: Ledger,
        xl: toolstack.Xl,
        userdata: Path = configuration.USERDATA,
    ) -> None:
        self._xen = hypercalls
        self._userdata = userdata
        self._ledger = ledger
        self._xl = xl
        self._lock = threading.Lock()  # two verbs for one domain do not run at a time
        self._busy: set[str] = set()

    def do(self, verb: str, arguments: dict[str, Any]) -> Any:
        """Do a verb. Returns JSON's types. Raises Refused, HypercallError, XlError, OSError."""
        verbs: dict[str, Callable[..., Any]] = {
            "state": self.state,
            "records": self.records,
            "configuration": self.configuration,
            "reset": self.reset,
            "go": self.go,
            "end": self.end,
            "forget": self.forget,
        }
        if verb not in verbs:
            raise Refused(f"verb {verb!r}: {', '.join(verbs)} expected")
        check(arguments)
        return verbs[verb](**arguments)

    def state(self, domid: int) -> dict[str, Any] | None:
        """Return what Xen says of a domain, the fields of Info; None if it is not there."""
        info = self._xen.info(domid)
        return None if info is None else info._asdict()

    def records(self) -> list[dict[str, Any]]:
        """Return the records of the guests that were reset, the fields of Record."""
        return [vars(record) for record in self._ledger.all()]

    def configuration(self, domid: int, uuid: str) -> dict[str, Any] | None:
        """Return what libxl has of a domain, name, type, actions; None if nothing."""
        found = configuration.read(domid, uuid, self._userdata)
        if found is None:
            return None
        return {"name": found.name, "type": found.type, "actions": found.actions}

    def reset(self, domid: int, uuid: str) -> dict[str, int] | None:
        """Reset a PVH guest that is down for it and is preserved; it stays paused.

        Returns: the frame of its xenstore ring, and the ports of its new event channels: gfn,
            store_port, console_port. None if its crash kernel runs, or has ended, already.
        """
        info, record = self._found(domid, uuid), self._ledger.find(uuid)
        if record is None or record.domid != domid:
            # Another domain had the UUID before it, and is gone.
            record = self._may_be_reset(info)
        if record.phase != RESETTING:
            return None
        down = info.reason == abi.SHUTDOWN_soft_reset
        if not info.paused:
            if not down:
                # It was cut off after the last step.
                self._ledger.put(replace(record, phase=RUNNING))
                return None
            self._xen.pause(domid)
        if down:
            self._xen.soft_reset(domid)
        return {
            "gfn": self._xen.get_param(domid, abi.HVM_PARAM_STORE_PFN),
            "store_port": self._xen.alloc_unbound(domid),
            "console_port": self._xen.alloc_unbound(domid),
        }

    def go(self, domid: int, uuid: str, store_port: int, console_port: int) -> None:
        """Start the crash kernel of a guest that was reset."""
        info, record = self._found(domid, uuid), self._ledger.find(uuid)
        begun = record is not None and record.phase == RESETTING
        if record is None or not begun or not info.paused or info.reason is not None:
            raise Refused(f"domain {domid} was not reset, or runs already")
        self._xen.set_param(domid, abi.HVM_PARAM_STORE_EVTCHN, store_port)
        self._xen.set_param(domid, abi.HVM_PARAM_CONSOLE_EVTCHN, console_port)
        self._xen.unpause(domid)
        self._ledger.put(replace(record, phase=RUNNING))

    def end(self, domid: int, uuid: str) -> dict[str, Any] | None:
        """Do what a guest's configuration says, once its crash kernel has ended.

        Returns: the fields of Record; None if there is nothing to do yet. The daemon has it
            forgotten once it has told of it.
        """
        with self._lock:
            if uuid in self._busy:
                return None
            self._busy.add(uuid)
        try:
            record = self._ledger.find(uuid)
            if record is None or record.domid != domid or record.phase == RESETTING:
                return None
            if record.phase != ENDED:
                record = self._end(record)
            return None if record is None else vars(record)
        finally:
            with self._lock:
                self._busy.discard(uuid)

    def forget(self, domid: int, uuid: str) -> None:
        """Forget a guest of which all was done and told."""
        record = self._ledger.find(uuid)
        if record is not None and record.domid == domid and record.phase == ENDED:
            self._ledger.remove(uuid)

    def _end(self, record: Record) -> Record | None:
        try:
            if record.phase == RUNNING:
                if self._left_to_xl(record):
                    return self._ledger.put(replace(record, phase=ENDED, by="xl"))
                info = self._there(record.domid, record.uuid)
                if info is None or info.reason is None:
                    return None
                record = self._ledger.put(self._decided(record, info.reason))
            self._act(record)
        except toolstack.XlError as error:
            # Tried again it would fail again; the guest is left as it is.
            return self._ledger.put(replace(record, phase=ENDED, by="pvdumpd", why=str(error)))
        return self._ledger.put(replace(record, phase=ENDED, by="pvdumpd"))

    def _decided(self, record: Record, reason: int) -> Record:
        """Return the record with what is to be done, which can be done then. Raises XlError."""
        known = configuration.read(record.domid, record.uuid, self._userdata)
        # A crash kernel that asks for a crash kernel has crashed.
        asked = abi.SHUTDOWN_crash if reason == abi.SHUTDOWN_soft_reset else reason
        action = known.action(asked) if known else configuration.PRESERVE
        if known and configuration.RESTART in action:
            path = self._ledger.path(record.uuid, ".cfg")
            self._xl.keep(record.name, record.uuid, known, path)
        return replace(record, phase=ENDING, reason=reason, action=action)

    def _left_to_xl(self, record: Record) -> bool:
        """Return whether the guest is gone or xl still waits for its end, and so acts itself.

        An xl that saw the panic has left; one that pvdumpd was faster than has not.
        """
        until = time.monotonic() + XL_SECONDS
        while self._there(record.domid, record.uuid) is not None:
            if not self._xl.waits_for(record.name):
                return False
            if time.monotonic() > until:
                return True
            time.sleep(POLL)
        return True

    def _act(self, record: Record) -> None:
        action = record.action
        there = self._there(record.domid, record.uuid) is not None
        if action.startswith(configuration.COREDUMP) and there:
            self._xl.dump_core(record.domid, record.name)
        action = action[len(configuration.COREDUMP) :] if "coredump" in action else action
        if action in (configuration.DESTROY, configuration.RESTART) and there:
            self._xl.destroy(record.domid)
        if action == configuration.RESTART:
            self._xl.create(self._ledger.path(record.uuid, ".cfg"), record.uuid)

    def _found(self, domid: int, uuid: str) -> Info:
        info = self._there(domid, uuid)
        if info is None:
            raise Refused(f"domain {domid}, {uuid}, is not there")
        return info

    def _there(self, domid: int, uuid: str) -> Info | None:
        info = self._xen.info(domid)
        return None if info is None or info.uuid != uuid or info.dying else info

    def _may_be_reset(self, info: Info) -> Record:
        """Return a new record, of a guest that is to be reset. Raises Refused."""
        known = configuration.read(info.domid, info.uuid, self._userdata)
        if info.reason != abi.SHUTDOWN_soft_reset:
            raise Refused(f"domain {info.domid} is not down for a soft reset")
        if known is None or known.type != "pvh":
            raise Refused(f"domain {info.domid} is no PVH guest of libxl's")
        if known.action(abi.SHUTDOWN_soft_reset) != configuration.PRESERVE:
            raise Refused(f'{known.name}: on_soft_reset is not "preserve"')
        return self._ledger.put(Record(info.domid, info.uuid, known.name, RESETTING))
