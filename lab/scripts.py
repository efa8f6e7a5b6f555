"""Guests that are scripts, for `./build.py lab SCRIPT.py`.

Made by the command. The rule: what a script finds is what it finds under `./build.py run`: a disk
xvdb, and, where there are two scripts, the other's number in the node data/partner.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lab import LabError
from lab.domain import Domain
from lab.guest import Guest

DISK = 128  # MiB
DISKS = "bcdefghijklmnop"  # xvdb, xvdc ...


def guests(
    paths: Sequence[Path], firmware: bool, imports: Sequence[Path], disks: Sequence[Path]
) -> list[Guest]:
    """Make guests of scripts; the first one has the disks.

    Args:
        paths: the scripts.
        firmware: whether they stand in hvmloader's place of HVM guests, not in PVH guests.
        imports: modules and packages.
        disks: files; none: an empty disk is made.

    Raises:
        LabError: there are too many scripts or disks.
    """
    if len(paths) > 2:
        raise LabError(f"{len(paths)} scripts; two at most")
    if len(disks) > len(DISKS):
        raise LabError(f"{len(disks)} disks; {len(DISKS)} at most")
    files: list[dict[str, Any]] = [
        {"vdev": f"xvd{letter}", "file": str(disk.absolute())}
        for letter, disk in zip(DISKS, disks, strict=False)
    ]
    found = []
    for number, path in enumerate(paths):
        fields: dict[str, Any] = {
            "name": f"script{number + 1}" if len(paths) > 1 else "script",
            "type": "firmware" if firmware else "pvh",
            "kernel": "pvboot-fw" if firmware else "pvboot-elf",
            "script": str(path.absolute()),
            "imports": [str(place.absolute()) for place in imports],
        }
        if not number:
            fields["disks"] = files or [{"vdev": "xvdb", "size": DISK}]
        found.append(Guest.parse(fields, str(path)))
    return found


def introduce(domains: Sequence[Domain]) -> None:
    """Tell two domains each other's number."""
    if len(domains) == 2:
        for one, other in zip(domains, reversed(domains), strict=True):
            path = f"/local/domain/{one.domid}/data/partner"
            one.xen.sh(f"xenstore-write {path} {other.domid}")
