"""What a guest can tell of the Xen below it: version, its own type, toolstack, disks' backends.

Read once by facts.py. The rules: nothing is asked that a guest may not ask; what cannot be told is
"" or None, never guessed.
Source: Linux Documentation/ABI/{stable,testing}/sysfs-hypervisor-xen; xenopsd's domain.ml
(unique-domain-id is its node); Linux drivers/xen/xenbus (nodename, driver).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple, Optional

from xenpv.block import vdev
from xenpv.errors import XenError

from ..xenstore.store import Store

XAPI, QUBES, EC2, LIBXL = "xapi (XCP-ng, XenServer)", "Qubes", "EC2", "libxl (xl or libvirt)"
UNKNOWN = "unknown"
# Of a backend, what a person may want to know.
FEATURES = (
    *("feature-flush-cache", "feature-barrier", "feature-discard", "feature-persistent"),
    *("feature-max-indirect-segments", "max-ring-page-order", "sector-size"),
)
NODE_MAX = 4096  # characters of a node's value


class Xen(NamedTuple):
    """The Xen of a guest.

    Attributes:
        version: major, minor and patch level; None where it cannot be read.
        kind: "HVM", "PVH" or "PV"; "" where it cannot be told.
        toolstack: one of the constants above.
        dom0: whether this is dom0.
        uuid: of the domain.
    """

    version: Optional[tuple[int, int, int]]
    kind: str
    toolstack: str
    dom0: bool
    uuid: str

    def shown(self) -> str:
        """Return the version as a person writes it."""
        return ".".join(map(str, self.version)) if self.version else UNKNOWN


class Disk(NamedTuple):
    """A PV disk.

    Attributes:
        name: as Xen's tools have it, such as xvda.
        backend: the kind of its backend, such as vbd, qdisk or vbd3; "" where it is not known.
        features: of the backend, by their names in xenstore.
    """

    name: str
    backend: str
    features: Mapping[str, str]


def read(root: Path, store: Mapping[str, str]) -> Xen | None:
    """Read what the kernel tells of Xen; None where there is none.

    Args:
        root: of the system.
        store: as read_store() gives it.
    """
    folder = root / "sys/hypervisor"
    if text(folder / "type") != "xen":
        return None
    uuid = text(folder / "uuid")
    return Xen(
        _version(folder / "version"),
        _kind(root),
        _toolstack(root, store, uuid),
        "control_d" in text(root / "proc/xen/capabilities"),
        uuid,
    )


def read_store(path: Path) -> dict[str, str]:
    """Read the nodes of this guest that doctor looks at.

    Args:
        path: of the xenstore's device or socket.

    Returns:
        texts by path; relative paths are below the domain's own directory.
    """
    found = {}
    try:
        with Store(path) as store:
            for name in ("unique-domain-id", "domid"):
                if (value := store.find(name)) is not None:
                    found[name] = value.decode("ascii", "replace")[:NODE_MAX]
            for number in store.directory("device/vbd", []):
                node = f"device/vbd/{number}/backend"
                back = store.read_text(node, "")
                found[node] = back
                for feature in FEATURES if back else ():
                    value = store.find(f"{back}/{feature}")
                    if value is not None:
                        key = f"device/vbd/{number}/{feature}"
                        found[key] = value.decode("ascii", "replace")[:NODE_MAX]
    except (XenError, OSError):
        pass  # no xenstore, or none that this user may ask: what was read is what is known
    return found


def read_disks(root: Path, store: Mapping[str, str]) -> list[Disk]:
    """Return the disks that xen-blkfront drives, in the order of their numbers."""
    numbers = []
    for folder in root.glob("sys/bus/xen/devices/vbd-*"):
        match = re.fullmatch(r"vbd-(\d+)", folder.name)
        if match and (folder / "driver").resolve().name == "vbd":
            numbers.append(int(match[1]))
    found = []
    for number in sorted(numbers):
        home = f"device/vbd/{number}/"
        # /local/domain/0/backend/KIND/DOMID/NUMBER
        parts = store.get(f"{home}backend", "").split("/")
        features = {name: store[home + name] for name in FEATURES if home + name in store}
        kind = parts[-3] if len(parts) > 3 else ""
        found.append(Disk(vdev.name(number), kind, features))
    return found


def text(path: Path) -> str:
    """Return a small file's text without white space around it, "" if it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _version(folder: Path) -> tuple[int, int, int] | None:
    try:
        major, minor = int(text(folder / "major")), int(text(folder / "minor"))
    except ValueError:
        return None
    # The rest is such as ".7", ".5-9.40" or "-unstable".
    match = re.match(r"\.(\d+)", text(folder / "extra"))
    return major, minor, int(match[1]) if match else 0


def _kind(root: Path) -> str:
    kind = text(root / "sys/hypervisor/guest_type")
    if kind in ("HVM", "PVH", "PV"):
        return kind
    # Before Linux 4.13; hvmloader makes the SMBIOS tables of HVM guests.
    return "HVM" if text(root / "sys/class/dmi/id/product_name") == "HVM domU" else ""


def _toolstack(root: Path, store: Mapping[str, str], uuid: str) -> str:
    bios = text(root / "sys/class/dmi/id/bios_version")
    if uuid.startswith("ec2") and ("amazon" in bios or not bios):
        return EC2
    if (root / "usr/share/qubes/marker-vm").exists():
        return QUBES
    if "unique-domain-id" in store:
        return XAPI
    return LIBXL if store else UNKNOWN
