"""`pvdump blkback attach` and `detach`: what is given can be opened, and wrong uses are refused."""

import fcntl
import os
import struct
import threading

import pytest

from pvdump import cli
from pvdump.blkback import command
from pvdump.blkback.backendstore import BackendStore
from pvdump.blkback.paths import backend_path, front_path
from pvdump.blkback.sink import open_sink
from pvdump.dump import holders
from pvdump.xenstore.store import Store
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport

XVDB = 51728


@pytest.fixture
def store(tmp_path):
    with UnixTransport(Xenstored(), tmp_path / "store") as unix:
        thread = threading.Thread(target=unix.run)
        thread.start()
        with Store(unix.path) as store:
            store.write("/local/domain/5/domid", "5")
            store.write("/local/domain/5/vm", "/vm/5")
            store.path = unix.path
            yield store
        unix.stop()
        thread.join()


@pytest.fixture(autouse=True)
def no_wait(monkeypatch):
    monkeypatch.setattr(command, "LEAVING_SECONDS", 0)


def attach(store, *arguments):
    """Run `attach` for domain 5. Returns the exit code."""
    return cli.main(["blkback", "attach", "--store", str(store.path), "5", "xvdb", *arguments])


def params(store):
    return store.find(f"{backend_path(5, XVDB)}/params")


def test_a_file_is_given(store, tmp_path):
    (tmp_path / "disk").write_bytes(bytes(512))
    assert attach(store, str(tmp_path / "disk")) == 0
    assert params(store) == os.fsencode(tmp_path / "disk")


@pytest.mark.parametrize("name", ["Gäste-Platte", "\udce4\udcf6\udcfc"])
def test_a_name_of_any_bytes_is_given_as_it_is(store, tmp_path, name):
    (tmp_path / name).write_bytes(bytes(512))
    assert attach(store, str(tmp_path / name)) == 0
    assert params(store) == os.fsencode(tmp_path / name)
    path = BackendStore(store).read(f"{backend_path(5, XVDB)}/params")
    open_sink(path, True, False).close()


def test_a_name_is_meant_from_where_it_is_given(store, tmp_path, monkeypatch):
    (tmp_path / "disk").write_bytes(bytes(512))
    monkeypatch.chdir(tmp_path)
    assert attach(store, "disk") == 0
    assert params(store) == os.fsencode(tmp_path / "disk")


def test_a_server_of_nbd_need_not_be_there_yet(store):
    assert attach(store, "nbd://host.invalid/disk") == 0
    assert params(store) == b"nbd://host.invalid/disk"


@pytest.mark.parametrize(
    ("sink", "says"),
    [
        ("none", "none: No such file or directory"),
        ("folder", "folder: no file or block device"),
        ("unreadable/disk", "unreadable/disk: Not a directory"),
        ("nbd:///disk", "nbd://HOST[:PORT]/EXPORT or"),
        ("nbd+unix:///disk", "nbd+unix:///EXPORT?socket=PATH expected"),
    ],
)
def test_what_cannot_be_opened_is_refused_and_no_nodes_are_made(
    store, tmp_path, monkeypatch, capsys, sink, says
):
    (tmp_path / "folder").mkdir()
    (tmp_path / "unreadable").touch()
    monkeypatch.chdir(tmp_path)
    assert attach(store, sink) == 1
    said = capsys.readouterr().err
    assert said.startswith("pvdump blkback: ")
    assert says in said
    assert said.count("\n") == 1
    assert said.count(sink) == 1
    assert params(store) is None
    assert store.find(front_path(5, XVDB)) is None


def test_a_file_in_use_is_refused_unless_it_is_shared(store, tmp_path, capsys):
    (tmp_path / "disk").write_bytes(bytes(512))
    used = open_sink(str(tmp_path / "disk"), False, False)
    assert attach(store, str(tmp_path / "disk")) == 1
    said = capsys.readouterr().err
    assert "is in use: another guest" in said
    assert said.count(str(tmp_path / "disk")) == 1
    assert attach(store, "--shared", str(tmp_path / "disk")) == 0
    assert store.find(f"{backend_path(5, XVDB)}/shared") == b"1"
    used.close()


def test_a_domain_that_does_not_exist_is_refused(store, tmp_path, capsys):
    (tmp_path / "disk").write_bytes(bytes(512))
    arguments = ["--store", str(store.path), "9", "xvdb", str(tmp_path / "disk")]
    assert cli.main(["blkback", "attach", *arguments]) == 1
    assert "domain 9 does not exist" in capsys.readouterr().err
    assert store.find("/local/domain/9") is None


@pytest.mark.parametrize("kind", ["pvdump_vbd", "vbd", "qdisk"])
@pytest.mark.parametrize(
    ("first", "second", "taken"),
    [
        ((), (), False),
        ((), ("--readonly",), False),
        (("--readonly",), (), False),
        (("--readonly",), ("--readonly",), True),
        ((), ("--shared",), True),
        ((), ("--shared", "--readonly"), True),
        (("--shared",), ("--readonly",), False),
    ],
)
def test_a_file_that_another_guest_was_given_is_shared_by_readers_only_though_nobody_serves_it(
    store, tmp_path, capsys, kind, first, second, taken
):
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(512))
    back = f"backend/{kind}/6/{XVDB}"
    for key, value in (
        ("params", str(disk)),
        ("dev", "xvdb"),
        ("mode", "r" if "--readonly" in first else "w"),
        ("shared", str(int("--shared" in first))),
    ):
        store.write(f"/local/domain/0/{back}/{key}", value)
    assert attach(store, *second, str(disk)) == (0 if taken else 1)
    assert ("domain 6 has it as xvdb" in capsys.readouterr().err) is not taken


@pytest.mark.parametrize(("byte", "taken"), [(100, True), (101, False)], ids=["reads", "writes"])
def test_a_file_that_qemu_has_is_shared_with_it_by_readers_only(
    store, tmp_path, monkeypatch, byte, taken
):
    monkeypatch.setenv("XENSTORED_PATH", str(store.path))
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(512))
    with disk.open("rb") as stream:
        lock = struct.pack(holders.FLOCK, fcntl.F_RDLCK, os.SEEK_SET, byte, 1, 0)
        fcntl.fcntl(stream, holders.F_OFD_SETLK, lock)
        assert attach(store, str(disk)) == 1
        assert attach(store, "--readonly", str(disk)) == (0 if taken else 1)
