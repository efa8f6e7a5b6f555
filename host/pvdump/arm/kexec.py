"""The crash kernel's place in the running kernel: what is reserved, loaded, allowed; load, unload.

Used by arm, disarm, test and status. The rule: what kexec would refuse with an errno is refused
before, with what to do. kexec_file_load is tried first, which lockdown allows; where the
kernel does not have it, kexec_load.
Source: Linux Documentation/ABI/testing/sysfs-kernel-kexec, kernel/kexec_core.c,
security/lockdown/lockdown.c; kexec(8).
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from pvfw.errors import DumpError

from ..guest import programs
from ..streams import pasted
from . import image as images

SYS = Path("sys/kernel")
DISABLED = Path("proc/sys/kernel/kexec_load_disabled")
FILE_LOAD, LOAD = "kexec_file_load", "kexec_load"
OPTIONS = {FILE_LOAD: "-s", LOAD: "-c"}


class KexecError(DumpError):
    """The image cannot be loaded; the message says why."""


class State(NamedTuple):
    """What the kernel says of its crash kernel.

    Attributes:
        known: whether it can have one at all.
        reserved: bytes of memory for it.
        loaded: whether there is one.
        disabled: whether loading is switched off until the next boot.
        lockdown: none, integrity or confidentiality.
    """

    known: bool
    reserved: int
    loaded: bool
    disabled: bool
    lockdown: str


def state(root: Path) -> State:
    """Read what the kernel says; what it does not say is "no"."""
    loaded = _text(root / SYS / "kexec_crash_loaded")
    size = _text(root / SYS / "kexec_crash_size")
    words = _text(root / SYS / "security/lockdown").split()
    lockdown = [word[1:-1] for word in words if word[0] == "["]
    return State(
        loaded != "",
        int(size) if size.isdecimal() else 0,
        loaded == "1",
        _text(root / DISABLED) == "1",
        lockdown[0] if lockdown else "none",
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def check(root: Path, image: Path) -> bytes:
    """Refuse what cannot be loaded.

    Returns:
        the image.

    Raises:
        DumpError: it cannot be loaded; the message says why.
    """
    found = state(root)
    if not found.known:
        raise KexecError("this kernel has no crash kernels: it was built without CONFIG_KEXEC")
    if not found.reserved:
        raise KexecError(
            "no memory is reserved for a crash kernel: `pvdump setup`, or crashkernel=4M on the "
            "kernel's command line; then reboot"
        )
    if found.disabled:
        raise KexecError(
            "nothing can be loaded until the next boot: kernel.kexec_load_disabled is 1"
        )
    raw = images.read(image)
    if found.lockdown != "none" and not images.is_signed(raw):
        raise KexecError(
            f"lockdown is in force ({found.lockdown}) and {image} is not signed: `pvdump sign`"
        )
    return raw


def words(option: str, image: Path, configuration: Path, cmdline: str) -> list[str]:
    """Return the words of the command that loads an image with its configuration."""
    found = ["kexec", "-p", option, str(image), f"--initrd={configuration}"]
    if cmdline:
        found.append(f"--command-line={cmdline}")
    return found


def load(root: Path, image: Path, configuration: Path, cmdline: str) -> str:
    """Load an image as crash kernel, in place of the one that is loaded.

    Returns:
        the system call that did it, FILE_LOAD or LOAD.

    Raises:
        DumpError: neither system call takes it. There may be no crash kernel then.
    """
    refused = ""
    for call, option in OPTIONS.items():
        try:
            programs.run(words(option, image, configuration, cmdline))
        except programs.ProgramError as error:
            # The first refusal tells most: under lockdown the other call is not permitted.
            refused = refused or str(error)
            continue
        if not state(root).loaded:
            raise KexecError("kexec ended without an error, but no crash kernel is loaded")
        return call
    raise KexecError(refused)


def unload() -> None:
    """Unload the crash kernel. Raises: DumpError."""
    refused: DumpError | None = None
    for option in OPTIONS.values():
        try:
            programs.run(["kexec", "-p", option, "-u"])
        except programs.ProgramError as error:
            refused = refused or error
        else:
            return
    assert refused is not None
    raise refused


def shown(image: Path, configuration: Path, cmdline: str) -> str:
    """Return the command that loads an image, as one line of a shell."""
    return " ".join(map(pasted, words(OPTIONS[FILE_LOAD], image, configuration, cmdline)))
