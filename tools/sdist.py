"""Source packages of the Python package index whose modules an image freezes as they are.

Called by tools/imageconfig.py. pip cannot unpack these: micropython-lib's have no setup.py. So
pip's own parts find and download the file, with the machine's settings of index, proxy and
certificates, and the rest is done here. The rule: a file with another hash than image.yaml's is not
used; the folder in the cache keeps PKG-INFO, which names author and licence, beside the modules.
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
import tempfile
from pathlib import Path

from tools import Trouble, cache, process

# Run by the python of our environment, whose pip has these parts.
FETCH = """\
import sys
from pip._internal.commands.download import DownloadCommand

class Fetch(DownloadCommand):
    def run(self, options, args):
        name, version, target = args
        session = self.get_default_session(options)
        finder = self._build_package_finder(options=options, session=session)
        for candidate in finder.find_all_candidates(name):
            if candidate.link.filename == f"{name}-{version}.tar.gz":
                answer = session.get(candidate.link.url_without_fragment)
                answer.raise_for_status()
                open(target, "wb").write(answer.content)
                return 0
        print(f"the index has no {name}-{version}.tar.gz", file=sys.stderr)
        return 1

sys.exit(Fetch("download", "").main(sys.argv[1:]))
"""


class FetchError(Trouble):
    """A source package could not be had, or is another one than was meant."""


def modules(name: str, version: str, digest: str) -> dict[str, Path]:
    """Give the modules of a source package, which is fetched unless it is in the cache.

    Args:
        name: of the package.
        version: of the package, as its file has it.
        digest: its file's SHA-256, in hex.

    Returns: import path as a file name ("cmd.py", "os/path.py") to the file.
    Raises: FetchError.
    """

    def make(folder: Path) -> None:
        with tarfile.open(fileobj=io.BytesIO(_fetch(name, version, digest))) as packed:
            for member in packed:
                member.name = member.name.partition("/")[2]
                if member.isfile() and _is_kept(member.name):
                    packed.extract(member, folder, filter="data")

    key = cache.digest(name, version, digest)
    folder = cache.stamped(cache.folder("sdist"), name, key, make)
    return {str(path.relative_to(folder)): path for path in sorted(folder.rglob("*.py"))}


def _is_kept(name: str) -> bool:
    return name.endswith(("/PKG-INFO", ".py")) and name not in ("setup.py", "sdist_upip.py")


def _fetch(name: str, version: str, digest: str) -> bytes:
    """Have pip's parts download the package. Returns the file, its hash checked."""
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, "sdist.tar.gz")
        command = [sys.executable, "-c", FETCH, "--quiet", name, version, str(target)]
        process.output(command, FetchError)
        content = target.read_bytes()
    found = hashlib.sha256(content).hexdigest()
    if found != digest:
        raise FetchError(f"{name} {version}: SHA-256 {digest} expected, {found} found")
    return content
