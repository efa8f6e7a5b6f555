"""Debian packages without installing them: downloaded by apt, unpacked, kept in the cache.

Called by the lab (Xen, kernels, tools), by the image build (MicroPython's source) and by the tests
(Xen's headers, dump readers). The rule: the machine's own apt is used but never changed. Each suite
has private lists, archives and an empty dpkg status (so that dependencies are resolved from
nothing); addresses, proxies and keys come from the machine's own configuration, and apt checks the
signatures. What was resolved once is remembered, so that a warm cache needs no network and gives
the same versions again. Source: apt.conf(5), apt-get(8), "apt-get indextargets".
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from tools import Trouble, cache, process
from tools.progress import NULL, Display, Stage

BACKPORTS = "-backports"
KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
MERGED = (
    "bin",
    "sbin",
    "lib",
    "lib64",
)  # top folders that are links into usr/ on an installed Debian


class AptError(Trouble):
    """apt or dpkg-deb failed; the message has its last lines."""


class Suite:
    """One Debian release as a store of unpacked packages.

    Its name is a code name such as "bookworm", or that of a release with its backports,
    "trixie-backports": packages and their dependencies are of these where there are any.
    """

    def __init__(self, name: str, progress: Display = NULL) -> None:
        if not re.fullmatch(rf"[a-z]+({BACKPORTS})?", name):
            raise AptError(
                f"suite {name!r}: expected a Debian code name such as bookworm or trixie"
            )
        self.name = name
        self.progress = progress
        self.stage: Stage | None = None  # shows the download that is under way
        self.home = cache.folder("apt", name)

    def debs(self, names: Iterable[str], dependencies: bool = True) -> list[Path]:
        """Download packages.

        names: package names, each may carry "=version".
        dependencies: also everything they depend on, from an empty system on.
        Returns the .deb files; without network when this was asked for before.
        """
        wanted = sorted(set(names))
        record = self.home / "sets" / f"{cache.digest(dependencies, *wanted)}.json"
        with cache.locked(self.home / "apt"):
            if files := self._recorded(record):
                return files
            with self._shown("fetch"):
                files = self._download(wanted, dependencies)
            record.parent.mkdir(exist_ok=True)
            sizes = {path.name: path.stat().st_size for path in files}
            record.write_text(json.dumps(sizes, indent=1), encoding="utf-8")
            return files

    def unpack(self, names: Iterable[str], dependencies: bool = True) -> Path:
        """Download packages and unpack them.

        Returns a folder that looks like the root of a system with these files; nothing was
        configured and no maintainer script was run. bin, sbin, lib and lib64 are links into usr/.
        """
        names = sorted(names)
        files = self.debs(names, dependencies)
        key = cache.digest("merged", *(path.name for path in files))

        def make(root: Path) -> None:
            for top in MERGED:
                (root / "usr" / top).mkdir(parents=True)
                (root / top).symlink_to(f"usr/{top}")
            with self.progress.stage("unpack", total=len(files), unit="packages") as stage:
                for path in files:
                    stage.note(path.name.partition("_")[0])
                    extract(path, root)
                    stage.advance()
                stage.note(self.name)

        return cache.stamped(cache.folder("apt", self.name, "roots"), names[0], key, make)

    def versions(self, names: Iterable[str], dependencies: bool = True) -> dict[str, str]:
        """Return package name -> version for the packages of debs() with these arguments."""
        parts = [path.stem.split("_") for path in self.debs(names, dependencies)]
        return {part[0]: part[1].replace("%3a", ":") for part in parts}

    def source(self, package: str, filename: str, sha256: str) -> Path:
        """Return one file of a Debian source package, such as its upstream tarball.

        sha256: hex; a file with another one is refused.
        Returns the path of the file in the cache.
        """
        path = cache.folder("apt", self.name, "sources") / filename
        with cache.locked(self.home / "apt"):
            if path.exists() and cache.file_digest(path) == sha256:
                return path
            with self._shown("fetch"):
                self._apt("update", source=True)
                self._fetch_source(package, path)
            found = cache.file_digest(path)
            if found != sha256:
                path.rename(path.with_suffix(".refused"))
                raise AptError(
                    f"{filename}: SHA-256 is {found}, expected {sha256}; kept as .refused"
                )
        return path

    def _fetch_source(self, package: str, path: Path) -> None:
        """Download the files of a version that has this one, the next version where that fails.

        A mirror may list the newest one, of a security update, and not have its files.
        """
        listed = self._apt("showsrc", package, source=True)
        versions = [
            found[1]
            for stanza in listed.split("\n\n")
            if (found := re.search(r"^Version: (\S+)$", stanza, re.MULTILINE))
            and re.search(rf"^ [0-9a-f]{{64}} \d+ {re.escape(path.name)}$", stanza, re.MULTILINE)
        ]
        failed = AptError(f"{self.name}: no version of source {package} has {path.name}")
        for version in versions:
            chosen = f"{package}={version}"
            try:
                self._apt("source", "--download-only", chosen, source=True, cwd=path.parent)
                return
            except AptError as error:
                failed = error
        raise failed

    @contextlib.contextmanager
    def _shown(self, name: str) -> Iterator[None]:
        with self.progress.stage(name, total=100, unit="%") as self.stage:
            yield
        self.stage = None

    def _recorded(self, record: Path) -> list[Path] | None:
        if not record.exists():
            return None
        sizes = json.loads(record.read_text(encoding="utf-8"))
        files = [self.home / "archives" / name for name in sizes]
        whole = all(f.exists() and f.stat().st_size == sizes[f.name] for f in files)
        return files if whole else None

    def _download(self, wanted: list[str], dependencies: bool) -> list[Path]:
        lists = self.home / "lists"
        fresh = False
        while True:
            try:
                if not any(lists.glob("*Packages*")):
                    self._update()
                    fresh = True
                return self._fetch(wanted, dependencies)
            except AptError:
                # The lists may be older than the mirror: look again once.
                if fresh:
                    raise
                self._update()
                fresh = True

    def _update(self) -> None:
        self._apt("update")

    def _fetch(self, wanted: list[str], dependencies: bool) -> list[Path]:
        archives = self.home / "archives"
        if dependencies:
            command = ["install", "--no-install-recommends", "--yes"]
        else:
            command = ["download"]
        uris = self._apt(*command, "--print-uris", *wanted)
        names = re.findall(r"^'\S+' (\S+\.deb) ", uris, re.MULTILINE)
        if dependencies:
            # print-uris leaves out what lies in the archives already; the simulation lists it all.
            plan = self._apt(*command, "--simulate", *wanted)
            lines = re.findall(r"^Inst (\S+) \((\S+) .*\[(\w+)\]\)", plan, re.MULTILINE)
            names = [f"{n}_{v.replace(':', '%3a')}_{arch}.deb" for n, v, arch in lines]
            self._apt(*command, "--download-only", *wanted)
        else:
            missing = [name for name in names if not (archives / name).exists()]
            if missing:
                self._apt(*command, *wanted, cwd=archives)
        files = [archives / name for name in names]
        if lost := [path.name for path in files if not path.exists()]:
            raise AptError(f"{self.name}: apt did not download {', '.join(lost)}")
        return files

    def _configuration(self, source: bool) -> Path:
        """Write the private apt.conf and sources.list; give the former."""
        for name in ("lists/partial", "archives/partial", "src-lists/partial"):
            (self.home / name).mkdir(parents=True, exist_ok=True)
        (self.home / "status").touch()
        kind, lists = ("deb-src", "src-lists") if source else ("deb", "lists")
        listing = self.home / f"{kind}.list"
        conf = self.home / f"{kind}.conf"
        signed = f"[signed-by={KEYRING}] " if KEYRING.exists() else ""
        if not listing.exists():
            lines = [f"{kind} {signed}{uri} {suite} main" for uri, suite in addresses(self.name)]
            listing.write_text("\n".join(lines) + "\n", encoding="utf-8")
        # Backports count less than their release, unless they are asked for.
        preferred = f'APT::Default-Release "{self.name}";\n' if BACKPORTS in self.name else ""
        conf.write_text(
            "#clear APT::Update::Post-Invoke;\n"
            "#clear APT::Update::Post-Invoke-Success;\n"
            "#clear DPkg::Post-Invoke;\n"
            f'Dir::State "{self.home}";\n'
            f'Dir::State::lists "{self.home}/{lists}";\n'
            f'Dir::State::status "{self.home}/status";\n'
            f'Dir::State::extended_states "{self.home}/extended_states";\n'
            f'Dir::Cache "{self.home}";\n'
            f'Dir::Cache::archives "{self.home}/archives";\n'
            'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
            f'Dir::Etc::SourceList "{listing}";\n'
            'Dir::Etc::SourceParts "/dev/null";\n'
            'Dir::Etc::Preferences "/dev/null";\nDir::Etc::PreferencesParts "/dev/null";\n'
            'APT::Architecture "amd64";\nAPT::Architectures { "amd64"; };\n'
            'APT::Sandbox::User "";\n'
            'Debug::NoLocking "true";\n'  # the cache has its own lock
            'Acquire::Retries "3";\nAcquire::Languages "none";\n'
            'Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";\n' + preferred,
            encoding="utf-8",
        )
        return conf

    def _apt(self, *words: str, source: bool = False, cwd: Path | None = None) -> str:
        conf = self._configuration(source)
        command = ["apt-cache" if words[0] == "showsrc" else "apt-get", "-q", "-c", str(conf)]
        if words[0] == "update":
            command += ["-o", "APT::Update::Error-Mode=any"]
        out = (self.home / "last.log").open("w+b")
        read, write = os.pipe()
        with os.fdopen(read, encoding="utf-8", errors="replace") as status:
            try:
                apt = subprocess.Popen(
                    [*command, "-o", f"APT::Status-Fd={write}", *words],
                    cwd=cwd or self.home,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    pass_fds=[write],
                    env={**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"},
                )
            finally:
                os.close(write)
            for line in status:
                # dlstatus:<item>:<percent>:<text>
                parts = line.rstrip().split(":", 3)
                if parts[0] == "dlstatus" and len(parts) == 4 and self.stage:
                    self.stage.done = float(parts[2])
                    self.stage.note(f"{self.name}: {parts[3].lower()}")
        code = apt.wait()
        with out:
            out.seek(0)
            text = out.read().decode(errors="replace")
        if code:
            raise AptError(f"{shlex.join([*command, *words])}: exit {code}\n{process.tail(text)}")
        return text


def addresses(codename: str) -> list[tuple[str, str]]:
    """Return (address, suite) pairs of a release, from the machine's own apt settings.

    The machine's own release (bookworm) is replaced by `codename` in each suite's name, so a
    machine with bookworm, bookworm-updates and bookworm-security serves trixie the same way. Where
    `codename` has backports, they are where the release itself is.
    """
    codename, backports, _ = codename.partition(BACKPORTS)
    form = "$(REPO_URI) $(RELEASE) $(ORIGIN)"
    own = process.output(
        ["apt-get", "indextargets", "--format", form, "Created-By: Packages"], AptError
    )
    pairs: list[tuple[str, str]] = []
    for line in own.splitlines():
        uri, _, rest = line.partition(" ")
        release, _, origin = rest.partition(" ")
        match = re.fullmatch(r"([a-z]+)(-updates|-security|/updates)?", release)
        # The origin is known once the machine's own lists were fetched.
        if origin.strip() not in ("Debian", "") or not match:
            continue
        pairs.append((uri, codename + (match[2] or "")))
        if backports and not match[2]:
            pairs.append((uri, codename + backports))
    if not pairs:
        raise AptError(
            "apt-get indextargets names no Debian mirror: see that this machine's apt sources "
            "hold a Debian suite, and run `apt-get update`"
        )
    return list(dict.fromkeys(pairs))


def extract(package: Path, root: Path, *members: str) -> None:
    """Unpack a .deb into a folder: all of it, or the members named ("./usr/bin/xl")."""
    # dpkg-deb's own --extract would replace the links into usr/ by folders.
    command = ["tar", "-x", "--keep-directory-symlink", "--no-same-owner", "-C", str(root)]
    command += members
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as content:
        process.output(command, AptError, stdin=content.stdout)
    if content.returncode:
        raise AptError(f"cannot unpack {package.name}: dpkg-deb, exit {content.returncode}")
