"""What libxl knows of a guest: its name, its type, and what is to be done when it goes down.

Read by verbs.py from libxl's userdata, which is root's. The rule: libxl writes a field only where
it is not the default, and a file that is not understood counts as none.
Source: Xen tools/libs/light/libxl_utils.c and libxl_dom.c (libxl__userdata_path),
libxl_types.idl (libxl_domain_config), xl_vmcontrol.c (handle_domain_death).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

from xenpv import abi

USERDATA = Path("/var/lib/xen")
PRESERVE = "preserve"
DESTROY = "destroy"
RESTART = "restart"
RENAME_RESTART = "rename-restart"
COREDUMP = "coredump-"
ACTIONS = {
    abi.SHUTDOWN_poweroff: "on_poweroff",
    abi.SHUTDOWN_reboot: "on_reboot",
    abi.SHUTDOWN_crash: "on_crash",
    abi.SHUTDOWN_watchdog: "on_watchdog",
    abi.SHUTDOWN_soft_reset: "on_soft_reset",
}


class Configuration(NamedTuple):
    """A guest's configuration.

    Attributes:
        name: the guest's.
        type: "hvm", "pvh" or "pv".
        actions: by ACTIONS' names, in the words of xl.cfg.
        devices: libxl's lists of its devices, such as "disks", as JSON has them.
    """

    name: str
    type: str
    actions: dict[str, str]
    devices: dict[str, list[dict[str, Any]]]

    def action(self, reason: int) -> str:
        """Return what is to be done after a shutdown; xl destroys for an unknown reason."""
        return self.actions.get(ACTIONS.get(reason, ""), DESTROY)


def parse(text: str) -> Configuration | None:
    """Read libxl's JSON of a domain's configuration; None if it is no such thing."""
    try:
        data = json.loads(text)
        info = data["c_info"]
        actions = {key: str(data.get(key, DESTROY)).replace("_", "-") for key in ACTIONS.values()}
        devices = {
            key: value
            for key, value in data.items()
            if isinstance(value, list) and value and all(isinstance(one, dict) for one in value)
        }
        return Configuration(str(info["name"]), str(info["type"]), actions, devices)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def read(domid: int, uuid: str, folder: Path = USERDATA) -> Configuration | None:
    """Read the configuration of a domain; None if libxl has none."""
    try:
        path = folder / f"userdata-d.{domid}.{uuid}.libxl-json"
        # libxl's JSON ends with a NUL.
        return parse(path.read_text(encoding="utf-8", errors="replace").rstrip("\0"))
    except OSError:
        return None
