"""The image is loaded for the kernel that runs now; later it is looked at whether that still holds.

Used by the commands arm, disarm, test and status. The rules: arming anew is always allowed, and one
command at a time does it; the record says what was armed, and is there only while the image is
loaded; the nonce is written into the targets when the image with the same nonce is loaded, since
from then on no other can dump to them.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pvfw import config
from pvfw.errors import ConfigError, DumpError, TargetRefused

from ..guest import record
from ..streams import complain
from . import blob, configuration, estimate, kexec, loaded, memory, settings, targets, watch
from .targets import Found

CONFIGURATION = record.RUN / "pvdump.conf"
ARMED = record.RUN / "armed.json"
LOCK = record.RUN / "lock"
KEYS = frozenset(
    "time release image image_sha256 call configuration_sha256 nonce_sha256 settings_sha256 level "
    "compress targets memory cpus estimate".split()
)
CPUS = Path("sys/devices/system/cpu/present")
MIB = 1 << 20


class ArmError(DumpError):
    """The image cannot be armed, or is not any more; the message says why."""


@contextmanager
def locked(root: Path) -> Iterator[None]:
    """Have no other command arm or disarm meanwhile. Raises ArmError."""
    path = root / LOCK
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ArmError(f"{path}: {error.strerror}") from error
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def arm(wanted: dict[str, Any], image: Path, root: Path) -> dict[str, Any]:
    """Load the image with a new configuration, in place of what is loaded.

    Args:
        wanted: the value of each of settings.SETTINGS.
        image: the image.
        root: of the system.

    Returns:
        the record.

    Raises:
        DumpError: it was refused. What was loaded before may be unloaded then.
    """
    raw = kexec.check(root, image)
    dumped = memory.ranges(root).dumped()
    found = usable(wanted["targets"], wanted["level"])
    made = configuration.make(wanted, found)
    assert made.nonce is not None
    content = blob.encode(made)
    done = {
        "time": int(time.time()),
        "release": made.release,
        "image": os.path.abspath(image),  # noqa: PTH100 - with the links that the person named
        "image_sha256": hashlib.sha256(raw).hexdigest(),
        "call": _load(root, image, content, configuration.cmdline(made), found),
        "configuration_sha256": hashlib.sha256(content).hexdigest(),
        "nonce_sha256": hashlib.sha256(made.nonce).hexdigest(),
        "settings_sha256": digest(wanted),
        "level": made.level,
        "compress": made.algorithm,
        "targets": [_described(each) for each in found],
        "memory": dumped,
        "cpus": cpus(root),
    }
    # The estimate of a large guest takes a while.
    save_record({**done, "estimate": None}, root)
    done["estimate"] = estimated(done, root)
    save_record(done, root)
    watch.begin([each.wanted.place for each in found if each.wanted.place is not None], root)
    return done


def arm_safely(wanted: dict[str, Any], image: Path, root: Path) -> dict[str, Any]:
    """Arm anew after a target was changed; where that is refused, for the log alone.

    The blocks that the image was loaded with may be another file's now, so it must not stay loaded.

    Args, Returns: as arm().

    Raises:
        ArmError: it was refused; the message says why, and what is armed now.
    """
    try:
        return arm(wanted, image, root)
    except DumpError as error:
        refused = str(error)
    armed = arm({**wanted, "targets": []}, image, root)
    save_record({**armed, "refused": refused}, root)
    raise ArmError(f"{refused}; armed for the log alone")


def _load(root: Path, image: Path, content: bytes, cmdline: str, found: Sequence[Found]) -> str:
    """Load an image with a configuration, and write the nonces. Returns the system call."""
    path = root / CONFIGURATION
    try:
        record.replace(path, content)
        (root / ARMED).unlink(missing_ok=True)
    except OSError as error:
        raise ArmError(f"{path}: {error.strerror}") from error
    call = kexec.load(root, image, path, cmdline)
    try:
        targets.stamp(found)
    except BaseException:
        with suppress(DumpError):
            kexec.unload()
        raise
    return call


def save_record(armed: dict[str, Any], root: Path) -> None:
    """Write the record of what is armed. Raises RecordError."""
    record.save(root / ARMED, armed)


def usable(wanted: Sequence[settings.Wanted], level: int) -> list[Found]:
    """Look at the targets; complain of each that takes no dump.

    Raises:
        ArmError: there are some, but none takes a dump; the message says why.
    """
    found = []
    refused = []
    for each in wanted:
        try:
            found.append(targets.find(each, level))
        except DumpError as error:
            refused.append(str(error))
    if refused and not found:
        raise ArmError("; ".join(refused))
    for line in refused:
        complain("arm", f"{line}; armed without it")
    return found


def _described(found: Found) -> dict[str, Any]:
    target = found.target
    place = found.wanted.place
    name = str(found.wanted)
    if place is not None:
        name = f"file:{os.path.abspath(place)}"  # noqa: PTH100 - with its links
    extents = None if target.extents is None else hashlib.sha256(target.extents.raw()).hexdigest()
    return {
        "name": name,
        "disk": target.name,
        "uuid": target.uuid.hex(),
        "extents_sha256": extents,
        "room": found.room,
    }


def digest(wanted: dict[str, Any]) -> str:
    """Return the digest of the settings that the image has."""
    said = [(name, str(wanted[name])) for name in settings.OPTIONS if name != "targets"]
    return hashlib.sha256(repr([*said, list(map(str, wanted["targets"]))]).encode()).hexdigest()


def cpus(root: Path) -> str:
    """Return the CPUs that the guest has, as the kernel writes them."""
    with suppress(OSError):
        return (root / CPUS).read_text().strip()
    return ""


def estimated(armed: dict[str, Any], root: Path) -> int | None:
    """Return the bytes that a dump would take now; None where the kernel does not tell."""
    with suppress(memory.MemoryUnknown):
        return estimate.estimate(armed["level"], armed["compress"], root)
    return None


def room_problem(armed: dict[str, Any]) -> str:
    """Tell why the room of all targets is too small for the estimate; "" if it is not."""
    rooms = [each["room"] for each in armed["targets"]]
    expected = armed["estimate"]
    if expected is None or not rooms or None in rooms or max(rooms) >= expected:
        return ""
    return (
        f"a dump would take {expected / MIB:.0f} MiB now, the targets have room for "
        f"{max(rooms) / MIB:.0f} MiB at most: its end would be missing"
    )


def load_record(root: Path) -> dict[str, Any]:
    """Read the record of what is armed; {} if nothing is.

    Raises:
        RecordError: it is damaged.
        ArmError: another version of pvdump wrote it.
    """
    armed = record.load(root / ARMED)
    if armed and not KEYS.issubset(armed):
        raise ArmError("another version of pvdump armed: `pvdump arm`")
    return armed


def verify(armed: dict[str, Any], root: Path) -> list[int]:
    """Look whether what was armed would still be dumped.

    Args:
        armed: the record.
        root: of the system.

    Returns:
        the room of each target, bytes.

    Raises:
        DumpError: it would not; the message says why.
    """
    if not kexec.state(root).loaded:
        raise ArmError("the image was unloaded since")
    if armed["release"] != os.uname().release:
        raise ArmError(f"it was armed for the kernel {armed['release']}")
    if [list(each) for each in memory.ranges(root).dumped()] != armed["memory"]:
        raise ArmError("the guest's memory has changed since")
    if cpus(root) != armed["cpus"]:
        raise ArmError("the guest's CPUs have changed since")
    made = loaded_configuration(armed, root)
    try:
        loaded.Region(root).check_configuration((root / CONFIGURATION).read_bytes())
    except loaded.NotThere as error:
        raise ArmError("another crash kernel was loaded since") from error
    except memory.MemoryUnknown:
        pass  # under lockdown what is loaded cannot be looked at
    return [
        targets.hold(settings.target(each["name"]), target)
        for each, target in zip(armed["targets"], made.targets)
    ]


def loaded_configuration(armed: dict[str, Any], root: Path) -> config.Config:
    """Read the configuration that was loaded.

    Raises:
        ArmError: it is not what was loaded.
    """
    path = root / CONFIGURATION
    try:
        raw = path.read_bytes()
        if hashlib.sha256(raw).hexdigest() != armed["configuration_sha256"]:
            raise TargetRefused("it is not what was loaded")
        return config.decode(raw)
    except OSError as error:
        raise ArmError(f"{path}: {error.strerror}") from error
    except (TargetRefused, ConfigError) as error:
        raise ArmError(f"{path}: {error}") from error


def outdated(armed: dict[str, Any], wanted: dict[str, Any], image: Path) -> str:
    """Tell why what is armed is not what is wanted now; "" if it is."""
    if digest(wanted) != armed["settings_sha256"]:
        return "the settings are others now"
    if len(armed["targets"]) < len(wanted["targets"]):
        names = [each["name"] for each in armed["targets"]]
        for each in wanted["targets"]:
            with suppress(DumpError):
                if _described(targets.find(each, wanted["level"]))["name"] not in names:
                    return f"{each} takes a dump now"
    with suppress(OSError):
        if hashlib.sha256(image.read_bytes()).hexdigest() != armed["image_sha256"]:
            return f"{image} is another image now"
    return ""


def disarm(root: Path) -> bool:
    """Unload the image, and remove configuration and record.

    Returns:
        whether an image was loaded.

    Raises:
        DumpError: it cannot be unloaded.
    """
    watch.end(root)
    loaded = kexec.state(root).loaded
    if loaded:
        kexec.unload()
    for name in (ARMED, CONFIGURATION):
        with suppress(FileNotFoundError):
            (root / name).unlink()
    return loaded
