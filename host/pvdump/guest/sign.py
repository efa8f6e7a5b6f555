"""`pvdump sign`: sign the image, for guests whose kernel takes signed crash kernels only.

Called by the command line. sbsign (sbsigntool) signs, sbverify checks what came out. The rule: the
signed image appears in one step, after it was checked.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import stat
from pathlib import Path

from ..arguments import file_name
from ..dump import newfile
from ..dump.disk import DiskError
from ..streams import tell
from . import dumps, programs

NEW = ".pvdump-signed"  # ends the name of what is to take another file's place
PE = b"MZ"  # begins an image
TOOLS = ("sbsign", "sbverify")
DESCRIPTION = """\
Sign the image with a key whose certificate the guest's firmware or kernel trusts (db, or a machine
owner key). Needs the programs sbsign and sbverify."""


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.description = DESCRIPTION
    parser.add_argument("image", type=file_name, metavar="IMAGE")
    parser.add_argument(
        "--key", type=file_name, required=True, metavar="FILE", help="private key, PEM"
    )
    parser.add_argument(
        "--cert", type=file_name, required=True, metavar="FILE", help="its certificate, PEM"
    )
    parser.add_argument(
        "--out", type=file_name, metavar="FILE", help="the signed image (default: IMAGE itself)"
    )


def run(options: argparse.Namespace) -> int:
    """Run the command. Returns the exit code."""
    out = options.out or options.image
    sign(options.image, options.key, options.cert, out)
    tell("sign", f"{out} is signed; `pvdump arm` loads it with kexec_file_load")
    return 0


def sign(image: Path, key: Path, cert: Path, out: Path) -> None:
    """Sign an image.

    Args:
        image: a PE file.
        key, cert: PEM files.
        out: of the signed image; an image there is replaced.

    Raises:
        DumpError: it cannot be signed, or the signature does not hold; nothing was changed.
    """
    for path in (image, key, cert):
        _refuse_unreadable(path)
    made = out.with_name(out.name + NEW)
    newfile.refuse_input(out, [key, cert])
    newfile.refuse_input(made, [image, key, cert])
    newfile.refuse_dev(out)
    newfile.refuse_special(out)
    if out != image:
        _refuse_other(out)
    for tool in TOOLS:
        if programs.find(tool) is None:
            raise DiskError(f"{tool} is missing: apt install sbsigntool (dnf install sbsigntools)")
    try:
        made.unlink(missing_ok=True)
        # sbsign makes a file that all can read, and so it may be: it has no secret.
        programs.run(
            ["sbsign", "--key", str(key), "--cert", str(cert), "--output", str(made), str(image)]
        )
        programs.run(["sbverify", "--cert", str(cert), str(made)])
        dumps.sync(made)
        made.replace(out)
        dumps.sync(out.parent)
    except OSError as error:
        raise DiskError(f"{out}: {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            made.unlink()


def _refuse_unreadable(path: Path) -> None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise DiskError(f"{path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise DiskError(f"{path} is no file")
    finally:
        os.close(fd)


def _refuse_other(out: Path) -> None:
    """Refuse to replace a file that is no image."""
    try:
        with out.open("rb") as stream:
            start = stream.read(len(PE))
    except OSError:
        return
    if start != PE:
        raise DiskError(f"{out} exists and is no image: name another file")
