"""The origin of packages, and their place in the cache."""

import contextlib
import hashlib

import pytest

from tools import apt, cache

OWN = """\
file:/mirror/debian/ bookworm Debian
file:/mirror/debian/ bookworm Debian
file:/mirror/debian/ bookworm-updates Debian
file:/mirror/security/ bookworm-security Debian
file:/other/ stable Somebody
file:/mirror/debian/ bookworm-backports Debian
"""


@pytest.fixture
def suite(tmp_path, monkeypatch):
    monkeypatch.setenv("PVDUMP_CACHE", str(tmp_path))
    return apt.Suite("bookworm")


def test_another_release_comes_from_the_machine_s_own_mirrors(monkeypatch):
    monkeypatch.setattr(apt.process, "output", lambda command, error: OWN)
    assert apt.addresses("trixie") == [
        ("file:/mirror/debian/", "trixie"),
        ("file:/mirror/debian/", "trixie-updates"),
        ("file:/mirror/security/", "trixie-security"),
    ]


def test_backports_are_where_their_release_is(monkeypatch):
    monkeypatch.setattr(apt.process, "output", lambda command, error: OWN)
    assert apt.addresses("trixie-backports") == [
        ("file:/mirror/debian/", "trixie"),
        ("file:/mirror/debian/", "trixie-backports"),
        ("file:/mirror/debian/", "trixie-updates"),
        ("file:/mirror/security/", "trixie-security"),
    ]


def test_a_machine_that_never_fetched_its_lists_has_addresses_too(monkeypatch):
    monkeypatch.setattr(
        apt.process, "output", lambda command, error: "file:/mirror/debian/ stable \n"
    )
    assert apt.addresses("bookworm") == [("file:/mirror/debian/", "bookworm")]


def test_a_machine_without_debian_sources_is_told_so(monkeypatch):
    monkeypatch.setattr(apt.process, "output", lambda command, error: "file:/other/ jammy Ubuntu\n")
    with pytest.raises(apt.AptError, match="names no Debian mirror"):
        apt.addresses("bookworm")


def test_what_was_fetched_once_needs_no_apt(suite, monkeypatch):
    deb = suite.home / "archives" / "xl_1%3a2_amd64.deb"
    deb.parent.mkdir()
    calls = []

    def download(wanted, dependencies):
        calls.append(wanted)
        deb.write_bytes(b"content")
        return [deb]

    monkeypatch.setattr(suite, "_download", download)
    assert suite.debs(["xl"]) == [deb]
    assert suite.debs(["xl"]) == [deb]
    assert suite.versions(["xl"]) == {"xl": "1:2"}
    assert calls == [["xl"]]
    deb.write_bytes(b"cut")
    suite.debs(["xl"])
    assert len(calls) == 2


def listed(*versions):
    """What apt-cache showsrc says of p.tar.xz in these versions."""
    checksum = f"Checksums-Sha256:\n {'0' * 64} 5 p.tar.xz\n"
    return "\n".join(f"Package: p\nVersion: {version}\n{checksum}" for version in versions)


def test_a_source_file_with_another_digest_is_refused(suite, monkeypatch):
    def run(*words, source=False, cwd=None):
        if "--download-only" in words:
            (cwd / "p.tar.xz").write_bytes(b"other")
        return listed("1")

    monkeypatch.setattr(suite, "_apt", run)
    with pytest.raises(apt.AptError, match=r"p\.tar\.xz: SHA-256 .* expected 00"):
        suite.source("p", "p.tar.xz", "00")
    assert not (suite.home / "sources" / "p.tar.xz").exists()


def test_a_source_file_is_taken_from_the_version_that_the_mirror_has(suite, monkeypatch):
    def run(*words, source=False, cwd=None):
        if "p=1+deb13u1" in words:
            raise apt.AptError("404")
        if "p=1" in words:
            (cwd / "p.tar.xz").write_bytes(b"")
        return listed("1+deb13u1", "1")

    monkeypatch.setattr(suite, "_apt", run)
    path = suite.source("p", "p.tar.xz", hashlib.sha256(b"").hexdigest())
    assert path == suite.home / "sources" / "p.tar.xz"


def test_a_source_file_that_no_version_gives_is_the_last_version_s_error(suite, monkeypatch):
    def run(*words, source=False, cwd=None):
        if "--download-only" in words:
            raise apt.AptError(words[-1])
        return listed("2", "1")

    monkeypatch.setattr(suite, "_apt", run)
    with pytest.raises(apt.AptError, match="p=1"):
        suite.source("p", "p.tar.xz", "00")


def test_a_suite_runs_one_apt_at_a_time(suite, monkeypatch):
    held = []

    @contextlib.contextmanager
    def locked(path):
        held.append(path)
        try:
            yield
        finally:
            held.pop()

    def run(*words, source=False, cwd=None):
        assert held == [suite.home / "apt"]
        return ""

    monkeypatch.setattr(cache, "locked", locked)
    monkeypatch.setattr(suite, "_apt", run)
    with pytest.raises(apt.AptError, match=r"no version of source p has p\.tar\.xz"):
        suite.source("p", "p.tar.xz", "00")
    suite.debs(["xl"])


def test_a_suite_s_name_is_a_code_name():
    with pytest.raises(apt.AptError, match="expected a Debian code name"):
        apt.Suite("../etc")
