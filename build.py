#!/usr/bin/env python3
"""The entry point of all work on the tree: ./build.py COMMAND [ARGUMENTS].

People, CI and the README call it; the work is in tools/ and lab/. The rule: it starts on the
system's python3 with the standard library alone, installs the packages that the command needs or
names them, makes the virtual environment of requirements.txt in the cache and goes on in it. Once
that environment is there, no package index or mirror is asked again.
"""

import sys

if sys.version_info < (3, 11):
    sys.exit("build.py needs Python 3.11 or newer, this is %d.%d" % sys.version_info[:2])

import argparse
import importlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent
SOURCE_ROOTS = [ROOT, ROOT / "drivers", ROOT / "firmware", ROOT / "host"]

sys.path[:0] = [str(path) for path in SOURCE_ROOTS if str(path) not in sys.path]

from tools import Trouble, cache, hostdeps, venv

USAGE = """\
usage: ./build.py COMMAND [ARGUMENTS]

  image    build out/pvdump.elf, .bin and .fw, and out/pvboot.elf, .bin and .fw
  run      run the image, or a script, in an embedded domain, its console on the terminal
  demo     panic a guest on a real Xen in QEMU and show its vmcore; --firmware: pvboot boots it
  test     everything that CI runs; arguments go to pytest (-m "not xen": the quick ones;
           -n 0: in one process, which -s needs; --all: matrices whole, not every pair of values)
  fuzz     run one test on new seeds for minutes: ./build.py fuzz NAME --minutes 10
  lint     ruff, mypy, clang-format, mpy-cross and the check for MicroPython's subset
  bench    measure ours beside a peer's, one JSON line a figure: ./build.py bench NAME
  lab      start a guest on a real Xen: ./build.py lab GUEST.yaml, or SCRIPT.py
  package  build the wheel, the .deb and the .rpm, with the images inside, in out/

Downloads and build products are kept in $PVDUMP_CACHE (default: ~/.cache/pvdump)."""


def image(arguments: list[str]) -> int:
    """Build the images and print their sizes."""
    parser = argparse.ArgumentParser(prog="build.py image")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder (default: out)")
    parser.add_argument(
        "--config",
        type=Path,
        action="append",
        help="its description (default: image.yaml and pvboot.yaml)",
    )
    options = parser.parse_args(arguments)

    from tools import progress
    from tools.image import build

    with progress.display() as display:
        for config in options.config or [ROOT / "image.yaml", ROOT / "pvboot.yaml"]:
            print(build(options.out, config=config, progress=display), end="\n\n")
    return 0


def package(arguments: list[str]) -> int:
    """Build the packages and print their names and sizes."""
    parser = argparse.ArgumentParser(prog="build.py package")
    parser.add_argument("--out", type=Path, default=ROOT / "out", help="folder (default: out)")
    options = parser.parse_args(arguments)

    from tools import progress
    from tools.package import build

    with progress.display() as display:
        result = build(options.out, display)
    print(result)
    return 0


def run(arguments: list[str]) -> int:
    """Run the image in an embedded domain."""
    from tools.run import main

    return main(arguments)


def demo(arguments: list[str]) -> int:
    """Panic a guest on a real Xen and show its vmcore."""
    from tools.demo import main

    return main(arguments)


def lint(arguments: list[str]) -> int:
    """Check the tree."""
    from tools.lint import main

    return main(arguments)


def test(arguments: list[str]) -> int:
    """Become pytest on the whole suite."""
    # Two, since a Xen takes a CPU and up to 4 GiB. host-tests/fixtures/sharing.py has the groups.
    processes = ["--numprocesses", "auto", "--maxprocesses", "2", "--dist", "loadgroup"]
    return module("pytest", [*processes, "--no-loadscope-reorder", *arguments])


def fuzz(arguments: list[str]) -> int:
    """Become pytest on new seeds of one test."""
    parser = argparse.ArgumentParser(prog="build.py fuzz")
    parser.add_argument(
        "name", nargs="?", default="", help="a test with seeds (default: list the names)"
    )
    parser.add_argument("--minutes", type=float, default=10, help="how long (default: 10)")
    parser.add_argument("--seed", type=int, help="only this seed, which a failure prints")
    options = parser.parse_args(arguments)
    chosen = f"--minutes={options.minutes}"
    if options.seed is not None:
        chosen = f"--seed={options.seed}"
    # With a space pytest would take the values for paths before it knows the options.
    return module("pytest", ["-q", "-m=not xen", f"--fuzz={options.name}", chosen])


def lab(arguments: list[str]) -> int:
    """Start a guest on a real Xen."""
    return module("lab", arguments)


def bench(arguments: list[str]) -> int:
    """Measure, and print each figure beside a peer's."""
    parser = argparse.ArgumentParser(prog="build.py bench")
    parser.add_argument(
        "name",
        choices=[
            *("boot", "dump", "sizes", "classify", "growth", "xenstore", "watches"),
            *("block", "blkfront", "blkback", "neighbours", "pack"),
        ],
        help="boot: a guest's boot by pvboot, beside GRUB, xl's own kernel= and pygrub; "
        "dump: a guest's dump, beside Linux's own kdump; "
        "sizes: dumps of real guests of 1, 4 and 8 GiB; "
        "growth: dumps of the same pages in guests of 4 GiB to 1 TiB; "
        "classify: judge struct pages, beside a copy; "
        "xenstore: requests in flight, beside one at a time and beside libxenstore; "
        "watches: many domains, one stalled; "
        "block: the next three together, streams of our front end beside Linux', "
        "our backend beside Linux' and qdisk, and fifteen disks beside a faulty guest's; "
        "pack: compression of pages, CRC-32, encryption, beside zstandard, zlib and pyrage",
    )
    parser.add_argument(
        "--smallest", action="store_true", help="dump: also the least crashkernel= that works"
    )
    options = parser.parse_args(arguments)
    if options.smallest and options.name != "dump":
        parser.error("--smallest is for dump")

    from tools import progress

    names = [options.name, *(["smallest"] if options.smallest else [])]
    with progress.display(sys.stderr) as display:
        for name in names:
            importlib.import_module(f"bench.{name}").run(display)
    return 0


def module(name: str, arguments: list[str]) -> int:
    """Become `python -m name`, in the root so that pytest finds its settings from anywhere."""
    sys.stdout.flush()
    if name == "pytest":
        os.chdir(ROOT)
    os.execv(sys.executable, [sys.executable, "-m", name, *arguments])


COMMANDS = {
    "image": image,
    "run": run,
    "demo": demo,
    "test": test,
    "fuzz": fuzz,
    "lint": lint,
    "bench": bench,
    "lab": lab,
    "package": package,
}


def enter_environment(command: str, arguments: list[str]) -> None:
    """Go on as the same command in the virtual environment, unless we are in it."""
    hostdeps.ensure(command)
    python = venv.ensure(ROOT / "requirements.txt")
    if python.parent.parent.samefile(sys.prefix):
        return
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join(map(str, SOURCE_ROOTS)),
        PVDUMP_CACHE=str(cache.base()),
    )
    environment.pop("PYTHONHOME", None)
    sys.stdout.flush()
    os.execve(python, [str(python), str(ROOT / "build.py"), command, *arguments], environment)


def main(argv: list[str]) -> int:
    """Run a command in the virtual environment. Returns the exit code."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        print(USAGE)
        return 0 if argv else 2
    command, arguments = argv[0], argv[1:]
    if command not in COMMANDS:
        print(f"build.py: no command {command!r}\n\n{USAGE}", file=sys.stderr)
        return 2
    try:
        enter_environment(command, arguments)
        return COMMANDS[command](arguments)
    except Trouble as trouble:
        print(f"build.py {command}: {trouble}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"build.py {command}: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
