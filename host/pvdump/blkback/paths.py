"""The paths of a disk's nodes in xenstore.

Used by the device, the host and attach. Source: Xen docs/misc/xenstore-paths.pandoc.
"""

from __future__ import annotations

HOME = "/local/domain/0"
TYPE = "pvdump_vbd"  # below backend/: a type of our own, which no kernel or QEMU serves
AREA = f"{HOME}/backend/{TYPE}"
ERRORS = f"{HOME}/error/backend/{TYPE}"
DOMAINS = "/local/domain"


def backend_path(domid: int, number: int) -> str:
    """Return the path of our nodes of a guest's virtual device."""
    return f"{AREA}/{domid}/{number}"


def error_path(domid: int, number: int) -> str:
    """Return the path below which a device's error stands."""
    return f"{ERRORS}/{domid}/{number}"


def front_path(domid: int, number: int) -> str:
    """Return the path of a guest's nodes of its virtual device."""
    return f"{DOMAINS}/{domid}/device/vbd/{number}"
