"""A YAML file of settings as nodes: names and values with their lines.

Used by settings.py. The rules: all scalars are texts, whatever they look like; what is no such file
is refused in one line, which has the number of the file's line.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pvfw.errors import DumpError

FILE_MAX = 65536  # bytes


class SettingsError(DumpError):
    """The file of settings cannot be used; the message names it and says why."""


def pairs(path: Path) -> Iterator[tuple[Any, Any]]:
    """Give the nodes of names and values of a YAML file; a file without any says nothing.

    Args:
        path: of the file.

    Raises:
        SettingsError: it cannot be read, or is of another form.
    """
    try:
        import yaml
    except ImportError as error:
        raise SettingsError(
            f"{path} needs PyYAML: `apt install python3-yaml`, or use the options instead"
        ) from error
    try:
        with path.open("rb") as stream:
            raw = stream.read(FILE_MAX + 1)
        if len(raw) > FILE_MAX:
            raise SettingsError(f"{path} has more than {FILE_MAX} bytes; no settings have as many")
        # Of this loader all scalars are texts: "no" is no boolean, 010 not 8.
        found: Any = yaml.compose(raw, Loader=yaml.BaseLoader)
    except OSError as error:
        raise SettingsError(f"{path}: {error.strerror}") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f" line {mark.line + 1}:" if mark else ""
        raise SettingsError(f"{path}:{line} {error.problem}") from error
    except RecursionError as error:
        raise SettingsError(f"{path}: its lists or mappings are nested too deeply") from error
    except (yaml.YAMLError, ValueError) as error:
        raise SettingsError(f"{path}: it has bytes that are no text") from error
    if found is None or (found.id == "scalar" and not found.value):
        return
    if found.id != "mapping" or any(key.id != "scalar" for key, _ in found.value):
        first = found.start_mark.line + 1
        raise SettingsError(f"{path}: line {first}: lines such as `level: 31` expected")
    yield from found.value
