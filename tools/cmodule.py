"""Small C modules for CPython, by cffi in API mode, compiled once.

Called by tools/hwlib.py (the `hw` primitives) and by the test that compares xenpv.abi with Xen's
headers. The rule: a module is named by the hash of everything it is made from, so that it is
compiled again exactly when that changes. The compiler is called directly: neither setuptools nor a
build folder in the tree is needed.
Source: cffi's documentation, "Preparing and distributing modules".
"""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import shlex
import sysconfig
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import cffi

from tools import Trouble, cache, process

FLAGS = ("-O2", "-std=gnu11", "-Wall", "-fPIC", "-shared", "-Wl,-Bsymbolic")


class CompileError(Trouble):
    """The C compiler refused a module; the message has its last lines."""


def build(
    name: str,
    cdef: str,
    source: str,
    include: Iterable[Path] = (),
    inputs: Iterable[Path] = (),
    objects: Iterable[Path] = (),
) -> Path:
    """Compile a module unless the cache has it.

    name: the module's import name.
    cdef: C declarations that Python sees.
    source: C text that defines them.
    include: folders for #include.
    inputs: files that `source` includes and that may change.
    objects: compiled files that it calls, whose paths change when they do.
    Returns the folder that holds it, to be put on sys.path.
    """
    include = [Path(folder) for folder in include]
    linked = [str(path) for path in objects]
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    texts = [path.read_text(encoding="utf-8") for path in inputs]
    made_of = (*include, *texts, *linked)
    key = cache.digest(cffi.__version__, suffix, FLAGS, name, cdef, source, *made_of)

    def make(folder: Path) -> None:
        builder = cffi.FFI()
        builder.cdef(cdef)
        builder.set_source(name, source)
        c_file = folder / f"{name}.c"
        with contextlib.redirect_stdout(io.StringIO()):  # cffi announces what it writes
            builder.emit_c_code(str(c_file))
        where = [sysconfig.get_path("include"), *map(str, include)]
        command = [*shlex.split(os.environ.get("CC", "cc")), *FLAGS, *(f"-I{one}" for one in where)]
        command += ["-o", str(folder / f"{name}{suffix}"), str(c_file), *linked]
        process.output(command, CompileError)

    return cache.stamped(cache.folder("cmodule"), name, key, make)


def load(name: str, folder: Path) -> ModuleType:
    """Import the module that build() left in `folder`, without touching sys.path."""
    path = folder / f"{name}{sysconfig.get_config_var('EXT_SUFFIX')}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
