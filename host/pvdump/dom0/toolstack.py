"""xl, as pvdumpd uses it after a dump: destroy a guest, and create it again.

Used by verbs.py, as root. The rule: libxl keeps no configuration that xl could read, so a guest is
created from the file it was created from, with the UUID, the disks and the network interfaces that
libxl has of it: those are of now, with what was plugged in or taken out.
Source: xl.cfg(5), xl-disk-configuration(5), xl-network-configuration(5), Xen
tools/libs/light/libxl_types.idl (libxl_device_disk, libxl_device_nic), tools/xl/xl_utils.c
(do_daemonize), tools/xl/xl_vmcontrol.c.
"""

from __future__ import annotations

import os
import re
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from . import guestfiles
from .configuration import Configuration

DUMPS = Path("/var/lib/xen/dump")
PROCESSES = Path("/proc")
PAUSE = 2.0  # s; xl waits as long before it creates a guest again

# Of a device's keys in libxl's JSON, the words of xl.cfg: what each is written as.
Words = dict[str, Callable[[Any], str]]
DISK: Words = {
    "pdev_path": lambda value: "",  # is last: everything after target= is the target
    "vdev": "vdev={}".format,
    "format": "format={}".format,
    "backend": lambda value: f"backendtype={'qdisk' if value == 'qdisk' else value}",
    "script": "script={}".format,
    "backend_domname": "backend={}".format,
    "readwrite": lambda value: "",  # beside is_cdrom it says the access
    "removable": lambda value: "",
    "is_cdrom": lambda value: "devtype=cdrom" if value else "",
    "direct_io_safe": lambda value: "direct-io-safe" if value else "",
    "discard_enable": lambda value: "discard" if value in (True, "True") else "no-discard",
    "specification": lambda value: "",
    "transport": lambda value: "",
    "colo_enable": lambda value: "",
    "colo_restore_enable": lambda value: "",
}
NIC: Words = {
    "devid": "devid={}".format,
    "mac": "mac={}".format,
    "mtu": "mtu={}".format,
    "model": "model={}".format,
    "bridge": "bridge={}".format,
    "ip": "ip={}".format,
    "script": "script={}".format,
    "ifname": "vifname={}".format,
    "gatewaydev": "gatewaydev={}".format,
    "backend_domname": "backend={}".format,
    "nictype": lambda value: {"vif": "type=vif", "vif_ioemu": "type=ioemu"}.get(value, ""),
}


class XlError(Exception):
    """xl failed, or a guest's file is not known; the message says what can be done."""


def disk(device: dict[str, Any]) -> str:
    """Return a disk of libxl's as xl.cfg has it. Raises XlError for one it cannot have."""
    words = _words(device, DISK, "disk", device.get("vdev"))
    words.append("access=rw" if device.get("readwrite") else "access=ro")
    return ",".join([*words, f"target={device.get('pdev_path') or ''}"])


def nic(device: dict[str, Any]) -> str:
    """Return a network interface of libxl's as xl.cfg has it. Raises XlError likewise."""
    return ",".join(_words(device, NIC, "network interface", device.get("devid")))


def _words(device: dict[str, Any], known: Words, what: str, name: object) -> list[str]:
    strange = sorted(device.keys() - known.keys())
    if strange:
        raise XlError(f"{what} {name}: {', '.join(strange)} cannot be written in xl.cfg")
    words = [known[key](value) for key, value in device.items() if value is not None]
    return [word for word in words if word]


def text(original: str, uuid: str, known: Configuration) -> str:
    """Return the configuration that a guest is created from again.

    Args:
        original: the file that it was created from.
        uuid: the guest's.
        known: what libxl has of it.

    Raises: XlError.
    """
    lists = {
        "disk": [disk(one) for one in known.devices.get("disks", [])],
        "vif": [nic(one) for one in known.devices.get("nics", [])],
    }
    # Of two settings of one name xl takes the last one.
    lines = [f'uuid = "{uuid}"', f"name = {_quoted(known.name)}"]
    lines += [f"{key} = [{', '.join(map(_quoted, value))}]" for key, value in lists.items()]
    return "\n".join([original, *lines, ""])


def _quoted(value: str) -> str:
    """Return a string as xl.cfg has it. Raises XlError for one that it cannot have."""
    for quote in "\"'":
        if quote not in value and "\n" not in value and "\\" not in value:
            return f"{quote}{value}{quote}"
    raise XlError(f"{value!r} cannot be written in xl.cfg")


class Xl:
    """The toolstack. All methods that run it raise XlError."""

    def __init__(self, program: Sequence[str] = ("xl",)) -> None:
        self._program = list(program)

    def waits_for(self, name: str) -> bool:
        """Return whether an xl in the background waits for a guest's end.

        Such a one has the guest's log, xl-NAME.log, as its standard output.
        """
        log = re.compile(rf"xl-{re.escape(name)}\.log(\.\d+)?")
        for process in PROCESSES.glob("[0-9]*"):
            try:
                if (process / "comm").read_bytes() != b"xl\n":
                    continue
                if log.fullmatch(Path(os.readlink(process / "fd/1")).name):  # noqa: PTH115
                    return True
            except OSError:  # it has ended
                continue
        return False

    def destroy(self, domid: int) -> None:
        """Destroy a domain."""
        self._run("destroy", str(domid))

    def dump_core(self, domid: int, name: str) -> None:
        """Write a domain's memory where xl does."""
        DUMPS.mkdir(parents=True, exist_ok=True)
        self._run("dump-core", str(domid), str(DUMPS / name))

    def keep(self, name: str, uuid: str, known: Configuration, path: Path) -> None:
        """Write the configuration that create() takes into a file."""
        source = guestfiles.find(name)
        if source is None:
            raise XlError(
                f"{name}: the file that it was created from is not known, so it is not created "
                f"again; `pvdump enable FILE` once tells it"
            )
        path.touch(mode=0o600)
        original = source.read_text(encoding="utf-8", errors="surrogateescape")
        whole = text(original, uuid, known)
        path.write_text(whole, encoding="utf-8", errors="surrogateescape")

    def create(self, path: Path, uuid: str) -> None:
        """Create a guest, unless there is one of its UUID."""
        time.sleep(PAUSE)
        # A line has UUID, number and name.
        if not re.search(rf"^{re.escape(uuid)}\s", self._run("vm-list"), re.MULTILINE):
            self._run("create", str(path))
        path.unlink(missing_ok=True)

    def _run(self, *words: str) -> str:
        """Run xl. Returns what it said."""
        done = subprocess.run(
            [*self._program, *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            start_new_session=True,  # the xl that stays outlives pvdumpd
            check=False,
        )
        if done.returncode:
            lines = " ".join(done.stdout.split())[-500:]
            raise XlError(f"xl {' '.join(words)}: exit {done.returncode}: {lines}")
        return done.stdout
