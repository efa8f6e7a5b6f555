"""image.yaml: reads it, checks it, and finds the Python files that it names.

Called by tools/image.py. The rule: a mistake in it ends the build with the file, the key, what was
expected and what was there. The crash kernel's image needs only the keys that have no default.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tools import Trouble, micropython, sdist

ROOT = Path(__file__).resolve().parent.parent

LEVELS = {"size": "-Os", "speed": "-O2"}
# Of a source package on the package index: name, version, SHA-256.
PACKAGE = re.compile(r"([a-z0-9.-]+) ([0-9a-z.-]+) ([0-9a-f]{64})")


class ConfigError(Trouble):
    """Something in image.yaml is missing, unknown or out of bounds."""


def between(low: int, high: int) -> tuple[str, Callable[[Any], bool]]:
    """Return a rule for whole numbers: its description and its check."""
    return (
        f"a number from {low} to {high}",
        lambda value: (
            isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        ),
    )


# The rule of each key. The upper bounds keep the body within the page tables of boot/paging.c.
KEYS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "frozen": (
        "a list of files and folders, not empty",
        lambda value: (
            isinstance(value, list) and bool(value) and all(isinstance(v, str) for v in value)
        ),
    ),
    "entry": (
        "the name of a frozen module, such as pvfw.main",
        lambda value: (
            isinstance(value, str) and all(part.isidentifier() for part in value.split("."))
        ),
    ),
    "heap_kib": between(64, 2048),
    "stack_kib": between(16, 256),
    "pool_pages": between(8, 256),
    "optimise": (
        " or ".join(LEVELS),
        lambda value: isinstance(value, str) and value in LEVELS,
    ),
    "name": (
        "the name of the files to make, of small letters",
        lambda value: isinstance(value, str) and value.isalpha() and value.islower(),
    ),
    "shell": ("yes or no", lambda value: isinstance(value, bool)),
    "offered": (
        "a list of frozen modules",
        lambda value: isinstance(value, list) and all(isinstance(v, str) for v in value),
    ),
    "packages": (
        "a list of source packages: name, version and SHA-256, with spaces in between",
        lambda value: (
            isinstance(value, list)
            and all(isinstance(v, str) and PACKAGE.fullmatch(v) for v in value)
        ),
    ),
}
DEFAULTS: dict[str, Any] = {"name": "pvdump", "shell": False, "offered": [], "packages": []}


@dataclass(frozen=True)
class Config:
    """A checked image.yaml.

    modules: import path as a file name ("xenpv/loop.py") to the file, in the order of the names;
        those that `frozen` names and the entry, what is offered, or their imports need, and those
        of the packages.
    """

    entry: str
    heap_kib: int
    stack_kib: int
    pool_pages: int
    optimise: str
    modules: dict[str, Path]
    name: str = DEFAULTS["name"]
    shell: bool = DEFAULTS["shell"]
    offered: list[str] = field(default_factory=list)
    packages: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Config:
        """Read and check `path`; fetch its packages. Raises ConfigError."""
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError) as error:
            raise ConfigError(f"{path}: {error}") from error
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: expected UTF-8, {error}") from error
        if not isinstance(values, dict):
            raise ConfigError(f"{path}: expected keys and values, one a line")
        values = {**DEFAULTS, **values}
        for key in values:
            if key not in KEYS:
                raise ConfigError(f"{path}: unknown key {key!r}; there are {', '.join(KEYS)}")
        for key, (expected, fits) in KEYS.items():
            if key not in values:
                raise ConfigError(f"{path}: {key} is missing: {expected}")
            if not fits(values[key]):
                raise ConfigError(f"{path}: {key}: expected {expected}, found {values[key]!r}")
        modules = find_modules(path, values.pop("frozen"))
        if values["entry"] not in map(import_name, modules):
            raise ConfigError(f"{path}: entry: no module {values['entry']!r} is frozen")
        for name in values["offered"]:
            if name not in map(import_name, modules):
                raise ConfigError(f"{path}: offered: no module {name!r} is frozen")
        chosen = needed(modules, [values["entry"], *values["offered"]])
        for package in values["packages"]:
            for name, file in sdist.modules(*package.split()).items():
                if name in chosen:
                    raise ConfigError(f"{path}: packages: {name} is there twice")
                chosen[name] = file
        return cls(modules=dict(sorted(chosen.items())), **values)

    def defines(self) -> list[str]:
        """Return the compiler flags that boot/config.h reads."""
        return [
            f"-DHEAP_KIB={self.heap_kib}",
            f"-DSTACK_KIB={self.stack_kib}",
            f"-DPOOL_PAGES={self.pool_pages}",
            f'-DENTRY_MODULE="{self.entry}"',
        ]

    def features(self) -> list[str]:
        """Return the compiler flags that MicroPython's own files are compiled with, too."""
        return list(micropython.SHELL_FLAGS) if self.shell else []

    def gcc_level(self) -> str:
        """Return gcc's option of the optimisation."""
        return LEVELS[self.optimise]


def find_modules(config: Path, names: list[str]) -> dict[str, Path]:
    """Return the Python files that `frozen` names; each is imported by its entry's name."""
    found: dict[str, Path] = {}
    for name in names:
        path = next((top / name for top in (config.parent, ROOT) if (top / name).exists()), None)
        if path is None:
            raise ConfigError(f"{config}: frozen: no file or folder {name!r}")
        files = sorted(path.rglob("*.py")) if path.is_dir() else [path]
        if not files:
            raise ConfigError(f"{config}: frozen: no Python file in {name!r}")
        for file in files:
            imported = str(file.relative_to(path.parent))
            if imported in found:
                raise ConfigError(f"{config}: frozen: {imported} is there twice")
            found[imported] = file.resolve()
    return dict(sorted(found.items()))


def import_name(file: str) -> str:
    """Return the name by which a file is imported: "xenpv.loop" for "xenpv/loop.py"."""
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def needed(modules: dict[str, Path], wanted: list[str]) -> dict[str, Path]:
    """Return those of the modules that are wanted, by their names, and what these import."""
    files = {import_name(file): file for file in modules}
    todo, found = list(wanted), set()
    while todo:
        name = todo.pop()
        if name in files and name not in found:
            found.add(name)
            todo.append(name.rpartition(".")[0])
            todo += _imports(name, modules[files[name]])
    return {file: path for file, path in modules.items() if import_name(file) in found}


def _imports(name: str, path: Path) -> Iterator[str]:
    """Yield what a module imports, wherever the statement stands; not each name is a module's."""
    package = name.split(".") if path.name == "__init__.py" else name.split(".")[:-1]
    try:
        tree = ast.parse(path.read_bytes(), filename=str(path))
    except SyntaxError as error:
        raise ConfigError(f"{path}:{error.lineno}: {error.msg}") from error
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) + 1 - node.level] if node.level else []
            source = ".".join([*above, *(node.module or "").split(".")]).strip(".")
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)
