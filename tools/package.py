"""`./build.py package`: pvdump's wheel, .deb and .rpm, each with the images inside, in out/.

Called by build.py, by the lab (a guest installs the .deb) and by tests. The rules: the files of
git and nothing else go in; the same tree gives the same bytes, whatever the clock and the machine's
name say. packaging/ has what is not Python: descriptions, scripts, the settings file.
"""

from __future__ import annotations

import contextlib
import gzip
import importlib
import io
import os
import re
import shutil
import sys
import tempfile
from argparse import ArgumentParser, _SubParsersAction
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import shtab
import yaml

import pvdump
from pvdump import cli
from pvdump.arguments import file_name, output_name, sink_name
from tools import Trouble, image, lint, process
from tools.apt import Suite
from tools.progress import NULL, Display

ROOT = Path(__file__).resolve().parent.parent
PACKAGING = ROOT / "packaging"
# What users import.
PACKAGES = ("drivers/xenpv", "firmware/pvfw", "host/pvdump")
# Where systemd finds these; setup installs a guest's others where they are wanted.
UNITS = ("host/pvdump/guest/units", "host/pvdump/dom0/units")
SYSTEM = {
    ".service": "usr/lib/systemd/system",
    ".timer": "usr/lib/systemd/system",
    ".rules": "usr/lib/udev/rules.d",
}
# Below it everything in both packages has its place; see packaging/nfpm.yaml.
PYTHON = "usr/lib/pvdump/python"
# Of arguments: kinds that are names of files, and how a choice of words is shown.
FILES = (file_name, output_name, sink_name)
WORDS = re.compile(r"[a-z]+(\|[a-z]+)*")
SCRIPTS = ("postinstall", "preremove", "postremove")
# Of Debian, for kernels and initrds; the .deb names their places.
HOOKS = ("postinst", "postrm", "post-update")
COLUMNS = "80"  # of the man page's usage
MANUAL = ("python3-argparse-manpage", "usr/lib/python3/dist-packages")


class PackageError(Trouble):
    """pip or nfpm failed; the message has its last lines."""


@dataclass(frozen=True)
class Packages:
    """The three files that were made."""

    wheel: Path
    deb: Path
    rpm: Path

    def __str__(self) -> str:
        files = (self.wheel, self.deb, self.rpm)
        return "\n".join(f"{path}  {path.stat().st_size:,} bytes" for path in files)


def build(out: Path, progress: Display = NULL) -> Packages:
    """Build the images and the packages.

    Args:
        out: The folder that gets them; files of these names are replaced.
        progress: Shows the steps.

    Raises:
        Trouble: a program that builds them failed.
    """
    images = _images(out, progress)
    with tempfile.TemporaryDirectory(prefix="pvdump-package-") as name, progress.stage("package"):
        folder = Path(name)
        time = _changelog(folder)
        made = [_wheel(folder, images, time)]
        _lay_out(folder, images, progress, time)
        made += [_nfpm(folder, kind) for kind in ("deb", "rpm")]
        return Packages(*(shutil.copyfile(path, out / path.name) for path in made))


def _images(out: Path, progress: Display) -> list[Path]:
    """Build the files that the packages have: the crash kernel, and pvboot for both its doors."""
    boot = image.build(out, progress, config=ROOT / "pvboot.yaml")
    return [image.build(out, progress).bin, boot.elf, boot.fw]


def command_line() -> ArgumentParser:
    """Return the parser of all commands with all their arguments."""
    top = cli.parser("")
    for name, parser in cli.commands_of(top).choices.items():
        cli.module(name).arguments(parser)
        _completed(parser)
    return top


def completion(shell: str) -> str:
    """Return the script that completes commands, options and values in a shell, bash or zsh."""
    top = command_line()
    for name, parser in cli.commands_of(top).choices.items():
        parser.description = cli.COMMANDS[name][1]  # zsh shows it, and one line of it alone
    return str(shtab.complete(top, shell))


def _completed(parser: ArgumentParser) -> None:
    """Have a shell complete names of files, and the words of what takes one of several."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for sub in action.choices.values():
                _completed(sub)
        elif action.type in FILES:
            action.complete = shtab.FILE  # type: ignore[attr-defined]
        elif WORDS.fullmatch(str(action.metavar)):
            action.choices = str(action.metavar).split("|")


def manual(progress: Display, time: datetime) -> str:
    """Return the man page, in roff, made of what --help says."""
    package, folder = MANUAL
    path = Suite("trixie", progress).unpack([package], dependencies=False) / folder
    with _columns():
        sys.path.append(str(path))
        try:
            module = importlib.import_module("argparse_manpage.manpage")
        finally:
            sys.path.remove(str(path))
        data = {
            "project_name": "pvdump",
            "version": pvdump.__version__,
            "description": "crash kernel for Linux guests on Xen",
            "manual_title": "pvdump",
            "date": f"{time:%Y-%m-%d}",
        }
        top = command_line()
        _tell_all(top)
        return str(module.Manpage(top, data, format="single-commands-section"))


def _tell_all(parser: ArgumentParser) -> None:
    """Have each command's epilog, such as its exit codes, in the page: only the first one's is."""
    for action in parser._actions:
        if isinstance(action, _SubParsersAction):
            for sub in action.choices.values():
                texts = (sub.description, sub.epilog)
                sub.description, sub.epilog = "\n\n".join(filter(None, texts)), None
                _tell_all(sub)


@contextlib.contextmanager
def _columns() -> Iterator[None]:
    """Have argparse take every terminal to be equally wide."""
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    try:
        yield
    finally:
        os.environ.pop("COLUMNS")
        if before is not None:
            os.environ["COLUMNS"] = before


def _changelog(folder: Path) -> datetime:
    """Write the changelog with the version; returns its newest date, which all files get."""
    text = (PACKAGING / "changelog.yaml").read_text(encoding="utf-8")
    text = text.replace("VERSION", pvdump.__version__)
    (folder / "changelog.yaml").write_text(text, encoding="utf-8")
    time: datetime = yaml.safe_load(text)[0]["date"]
    return time


def _sources(top: str) -> Iterator[tuple[Path, Path]]:
    """Give each file that a package has: its path in the tree, and that below its source root."""
    for path in lint.files(top):
        if path.name != "ruff.toml":
            yield ROOT / path, path.relative_to(Path(top).parent)


def _put(source: Path, target: Path, mode: int = 0o644) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(mode)


def _wheel(folder: Path, images: list[Path], time: datetime) -> Path:
    """Build the wheel from a copy of the tree that has the images."""
    tree, out = folder / "tree", folder / "wheel"
    for top in PACKAGES:
        for path, _ in _sources(top):
            _put(path, tree / path.relative_to(ROOT))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        _put(ROOT / name, tree / name)
    for path in images:
        _put(path, tree / "host/pvdump/image" / path.name)
    command = [*(sys.executable, "-B", "-m", "pip", "wheel", "--quiet", "--no-deps"), "--no-input"]
    command += ["--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(tree)]
    process.output(command, PackageError, environment=_environment(time))
    (wheel,) = out.iterdir()
    return wheel


def _lay_out(folder: Path, images: list[Path], progress: Display, time: datetime) -> None:
    """Write the files of both packages, as nfpm.yaml names them."""
    root = folder / "root"
    for top in PACKAGES:
        for path, place in _sources(top):
            _put(path, root / PYTHON / place)
    for path, _ in (found for folder in UNITS for found in _sources(folder)):
        if where := SYSTEM.get(path.suffix):
            _put(path, root / where / path.name)
    _put(PACKAGING / "pvdump", root / "usr/bin/pvdump", 0o755)
    _put(PACKAGING / "pvdump.yaml", root / "etc/pvdump.yaml")
    for path in images:
        _put(path, root / "usr/lib/pvdump" / path.name)
    _write(root / "usr/share/man/man1/pvdump.1.gz", _packed(manual(progress, time)))
    shell = "usr/share/bash-completion/completions/pvdump"
    _write(root / shell, completion("bash").encode())
    for kind in ("deb", "rpm"):
        _write(folder / kind / "_pvdump", completion("zsh").encode())
    _put(ROOT / "LICENSE", folder / "rpm/LICENSE")
    _write(folder / "deb/copyright", _copyright().encode())
    _put(
        PACKAGING / "boot/kernel-install",
        root / "usr/lib/kernel/install.d/99-pvdump.install",
        0o755,
    )
    for name in HOOKS:
        _put(PACKAGING / "boot" / name, folder / "boot" / name, 0o755)
    for name in SCRIPTS:
        _put(PACKAGING / "scripts" / name, folder / "scripts" / name, 0o755)
    for path in folder.rglob("*"):
        if path.is_dir():
            path.chmod(0o755)
        os.utime(path, (time.timestamp(), time.timestamp()))


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    path.chmod(0o644)


def _packed(text: str) -> bytes:
    """Return a text packed by gzip, without name and time."""
    packed = io.BytesIO()
    with gzip.GzipFile("", "wb", 9, packed, mtime=0) as stream:
        stream.write(text.encode())
    return packed.getvalue()


def _copyright() -> str:
    """Return Debian's copyright file: its fields, then the licence's text as one of them."""
    _, _, terms = (ROOT / "LICENSE").read_text(encoding="utf-8").partition("contributors\n\n")
    lines = (f" {line}" if line else " ." for line in terms.splitlines())
    return (PACKAGING / "copyright").read_text(encoding="utf-8") + "\n".join(lines) + "\n"


def _nfpm(folder: Path, kind: str) -> Path:
    """Have nfpm make a package of the files that were laid out."""
    settings: dict[str, Any] = yaml.safe_load((PACKAGING / "nfpm.yaml").read_text("utf-8"))
    (newest,) = yaml.safe_load((folder / "changelog.yaml").read_text("utf-8"))[:1]
    settings |= {"version": pvdump.__version__, "mtime": newest["date"].isoformat()}
    config, out = folder / "nfpm.yaml", folder / f"{kind}-out"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    out.mkdir()
    command = [lint.tool("nfpm"), "package", "--config", str(config), "--packager", kind]
    environment = _environment(newest["date"])
    process.output(
        [*command, "--target", str(out)], PackageError, cwd=folder, environment=environment
    )
    (package,) = out.iterdir()
    return package


def _environment(time: datetime) -> dict[str, str]:
    """Return the environment of a program that builds: no PYTHON* variable, and a fixed time."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return {
        **own,
        "PYTHONDONTWRITEBYTECODE": "1",
        "SOURCE_DATE_EPOCH": str(int(time.timestamp())),
    }
