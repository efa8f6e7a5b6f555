"""`pvdump sign-boot`: sign kernels, initrds and boot entries, for pvboot with pvdump.verify=.

Called by the command line, and by the hooks in packaging/boot as a kernel is installed. minisign
signs. The rules: a signature stands in the folder `minisig` beside its file, where no boot loader's
program takes it for a kernel; it says of which path it is; it appears in one step.
Source: pvfw/boot/trust.py, which reads them.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from pvfw.errors import DumpError

from ..arguments import file_name
from ..arm import settings
from ..streams import pasted, tell
from . import dumps, programs

FOLDER, END = "minisig", ".minisig"
NEW = ".pvdump-new"  # ends the name of a signature that is being made
# Where partitions for booting are mounted; a path is signed as it is below one of them.
ROOTS = (Path("/boot/efi"), Path("/boot"), Path("/efi"))
ROOT_VARIABLE = "KERNEL_INSTALL_BOOT_ROOT"
DESCRIPTION = """\
Sign files that a guest is booted from, with the key that boot_key: in the settings names, for
pvboot with pvdump.verify=. The signature of DIR/NAME is DIR/minisig/NAME.minisig. Needs the program
minisign; the key must have no password (minisign -G -W)."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("files", type=file_name, nargs="+", metavar="FILE")
    parser.add_argument(
        "--entry",
        action="store_true",
        help="each FILE is an entry of the Boot Loader Specification: sign the kernel and the "
        "initrds that it names, too",
    )
    parser.add_argument(
        "--if-set",
        action="store_true",
        help="where the settings have no boot_key, do nothing, without a word: for hooks",
    )
    settings.add_file(parser)


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    key = settings.settled(options)["boot_key"]
    if key is None:
        if options.if_set:
            return 0
        raise DumpError("the settings have no boot_key, so there is nothing to sign with")
    files = list(options.files)
    if options.entry:
        files += [named for each in options.files for named in _named(each)]
    for path in files:
        sign(path, key)
        tell("sign-boot", f"{path} is signed")
    return 0


def sign(path: Path, key: Path) -> Path:
    """Sign a file.

    Args:
        path: of the file.
        key: of minisign, private, without a password.

    Returns:
        the path of the signature; one that was there is replaced.

    Raises:
        DumpError: it cannot be signed; what was there is as it was.
    """
    if programs.find("minisign") is None:
        raise DumpError("minisign is missing: apt install minisign || dnf install minisign")
    _refuse_open_key(key)
    if not path.is_file():
        raise DumpError(f"{path} is no file, or is not there")
    name = _signed_name(path)
    if not name.isprintable():
        raise DumpError(f"{path} has a name that no signature can have")
    comment = f"timestamp:{int(time.time())}\tfile:{name}\thashed"
    signature = path.parent / FOLDER / f"{path.name}{END}"
    made = signature.with_name(f"{signature.name}{NEW}")
    try:
        signature.parent.mkdir(exist_ok=True)
        made.unlink(missing_ok=True)
        words = ["-s", str(key), "-m", str(path), "-x", str(made), "-t", comment]
        programs.run(["minisign", "-S", "-H", *words])
        dumps.sync(made)
        made.replace(signature)
        dumps.sync(signature.parent)
    except OSError as error:
        raise DumpError(f"{signature}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            made.unlink()
    return signature


def _refuse_open_key(key: Path) -> None:
    try:
        mode = key.stat().st_mode
    except OSError as error:
        raise DumpError(f"boot_key: {key}: {error.strerror}") from error
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise DumpError(f"boot_key: others may read it: chmod 600 {pasted(key)}")


def _signed_name(path: Path) -> str:
    """Return the path of a file below the partition that it is booted from, else its name."""
    whole = Path(os.path.abspath(path))  # noqa: PTH100 - links stay as the boot loader names them
    own = os.environ.get(ROOT_VARIABLE)
    for root in (*([Path(own)] if own else []), *ROOTS):
        if root in whole.parents:
            return str(whole.relative_to(root))
    return path.name


def _named(entry: Path) -> Iterator[Path]:
    """Give the files that an entry in ROOT/loader/entries names: below ROOT, else as they are."""
    root = entry.parent.parent.parent
    try:
        lines = entry.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
    except OSError as error:
        raise DumpError(f"{entry}: {error.strerror}") from error
    for line in lines:
        words = line.split()
        for name in words[1:] if words[:1] in (["linux"], ["initrd"]) else ():
            if not name.startswith("$"):
                below = root / name.lstrip("/")
                yield below if below.is_file() else Path("/", name)
