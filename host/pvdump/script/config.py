"""xl's configuration of a guest that is a script.

Used by folder.py. The rule: all names are whole paths, since xl looks for others in the folder that
it was started in. Source: xl.cfg(5), xl-disk-configuration(5).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Union

from .text import ScriptError

PVH, FIRMWARE = "pvh", "firmware"
# What the folder has: the image's name and the script's, by the door.
FILES = {PVH: ("pvboot.elf", "script.py"), FIRMWARE: ("pvboot.fw", "script.txt")}
CONFIG = "xl.cfg"
RUN = "pvdump.run=script"
# hvmloader's place has no command line: options stand before the script.
OPTIONS = f"#pvdump\n{RUN}\n"
HEAD = """\
# A guest that is the script %s. Made by `pvdump script`; xl.cfg(5) has all settings.
# When the script ends, the guest powers off; where it fails, the guest crashes.
"""
Value = Union[str, int, Sequence[str]]


def encode(
    door: str, folder: Path, script: Path, name: str, memory: int, disks: Sequence[Path]
) -> str:
    """Return the configuration's text.

    Args:
        door: PVH or FIRMWARE.
        folder: where the files are, a whole path.
        script: the script's name, for whoever reads the text.
        name: the guest's.
        memory: MiB.
        disks: files or devices, whole paths; xvda, xvdb ...

    Raises:
        ScriptError: a name has a character that xl's text cannot have.
    """
    image, text = (str(folder / each) for each in FILES[door])
    values: dict[str, Value] = {"name": name, "memory": memory, "vcpus": 1}
    if door == PVH:
        values |= {"type": "pvh", "kernel": image, "ramdisk": text, "cmdline": RUN}
    else:
        values |= {"type": "hvm", "bios": "seabios", "firmware_override": image}
        values |= {"bios_path_override": text, "vga": "none", "vnc": 0}
    values |= {f"on_{event}": "destroy" for event in ("poweroff", "reboot", "crash")}
    if disks:
        values["disk"] = [_disk(number, path) for number, path in enumerate(disks)]
    return HEAD % ascii(script.name) + _lines(values)


def _disk(number: int, path: Path) -> str:
    # Whatever follows target= is the name.
    return f"format=raw,vdev=xvd{chr(ord('a') + number)},access=rw,target={path}"


def _lines(values: Mapping[str, Value]) -> str:
    return "".join(f"{name} = {_value(value)}\n" for name, value in values.items())


def _value(value: Value) -> str:
    if isinstance(value, int):
        return str(value)
    if not isinstance(value, str):
        return "[" + ", ".join(map(_value, value)) + "]"
    if not value.isprintable():
        raise ScriptError(f"{value!r}: xl takes no name with such a character")
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
