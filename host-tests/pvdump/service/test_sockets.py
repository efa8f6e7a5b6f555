"""The file of a listening socket: who can open it, what it replaces, when it is removed."""

import contextlib
import os
import socket
import stat
from pathlib import Path

import pytest

from pvdump.service.sockets import SocketFile, SocketRefused


@pytest.fixture
def path(tmp_path):
    return tmp_path / "socket"


@contextlib.contextmanager
def listening(path, backlog=1):
    file = SocketFile(path, backlog)
    try:
        yield file.socket
    finally:
        file.close()


def leave(path):
    """Leave a socket as a killed server does."""
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))


def reaches(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_it_is_the_owner_s_alone_whatever_the_umask(path):
    before = os.umask(0)
    try:
        with listening(path):
            mode = path.lstat().st_mode
    finally:
        os.umask(before)
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_it_goes_with_its_server(path):
    with listening(path):
        reaches(path)
    assert not path.exists()


def test_a_dead_server_s_is_replaced(path):
    leave(path)
    with listening(path):
        reaches(path)


def test_a_live_server_s_is_left_alone(path):
    with listening(path):
        with pytest.raises(SocketRefused, match="another server listens there"):
            SocketFile(path, 1)
        reaches(path)


def test_a_server_too_busy_to_answer_is_left_alone(path):
    with contextlib.ExitStack() as stack:
        stack.enter_context(listening(path, 0))
        with contextlib.suppress(BlockingIOError):
            while True:
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(SocketRefused, match="another server listens there"):
            SocketFile(path, 1)


def test_what_is_no_socket_is_left_alone(path):
    path.write_text("precious")
    with pytest.raises(SocketRefused, match="is there and is no socket"):
        SocketFile(path, 1)
    assert path.read_text() == "precious"


def test_a_link_to_a_socket_is_no_socket(path, tmp_path):
    leave(tmp_path / "other")
    path.symlink_to(tmp_path / "other")
    with pytest.raises(SocketRefused, match="is there and is no socket"):
        SocketFile(path, 1)


def test_another_s_in_its_place_is_left_there(path):
    with listening(path):
        # Kept, so that the new one is not given its inode.
        path.rename(path.with_name("kept"))
        leave(path)
    assert path.exists()


def test_one_that_cannot_be_removed_is_named(path, monkeypatch):
    def refuse(path):
        raise PermissionError(1, "Operation not permitted")

    leave(path)
    monkeypatch.setattr(Path, "unlink", refuse)
    with pytest.raises(SocketRefused, match="socket: Operation not permitted"):
        SocketFile(path, 1)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(SocketRefused, match="none/socket: No such file"):
        SocketFile(tmp_path / "none/socket", 1)
