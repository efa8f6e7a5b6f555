"""`pvdump blkback show`: what a status socket says is checked before it is printed."""

import dataclasses
import json
import socket
import threading

import pytest
from blkback.front import FLUSH, Xen

from pvdump import cli
from pvdump.blkback.status import Status, row
from pvdump.watches.server import StatusServer


def disk_row(**fields):
    """The row of a disk that is in use, but for the fields given, as JSON has it."""
    front = Xen().fronts[0].connect()
    front.status(FLUSH)
    return {**dataclasses.asdict(row(front.device)), **fields}


def show(path, *options):
    return cli.main(["blkback", "show", *options, str(path)])


def say(path, line):
    """Serve one client of a socket with a line, whatever it asks."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(1)

    def serve():
        connection, _ = listener.accept()
        with listener, connection:
            connection.recv(1024)
            connection.sendall(line + b"\n")

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


def refused(tmp_path, capsys, line):
    """What `show` complains of when the socket says this."""
    thread = say(tmp_path / "socket", line)
    assert show(tmp_path / "socket") == 1
    thread.join()
    said = capsys.readouterr()
    assert said.out == ""
    return said.err


def test_a_disk_is_a_line(tmp_path, capsys):
    front = Xen().fronts[0].connect()
    with StatusServer(tmp_path / "socket", lambda: Status([row(front.device)])):
        assert show(tmp_path / "socket") == 0
    assert capsys.readouterr().out.split()[:3] == ["1/51728", "Connected", "waiting"]


def test_json_has_all_fields(tmp_path, capsys):
    front = Xen().fronts[0].connect()
    with StatusServer(tmp_path / "socket", lambda: Status([row(front.device)])):
        assert show(tmp_path / "socket", "--json") == 0
    (found,) = json.loads(capsys.readouterr().out)["disks"]
    assert found.keys() == disk_row().keys()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"", "Expecting value"),
        (b"{", "Expecting property name"),
        (b"\xff\xfe", "decode"),
        (b"[" * 100000, "recursion"),
        (b"[]", "an object with disks expected, [] found"),
        (b'{"rows": []}', "'rows' is not known; disks are"),
        (b'{"disks": {}}', "disks: a list expected, {} found"),
        (b'{"disks": [1]}', "disks[0]: an object with requests"),
        (b'{"error": "busy"}', "it says 'busy'"),
    ],
)
def test_what_is_no_status_is_refused(tmp_path, capsys, line, message):
    assert message in refused(tmp_path, capsys, line)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"read": "1"}, "disks[0]: read: a number expected, '1' found"),
        ({"read": True}, "disks[0]: read: a number expected, True found"),
        ({"state": -9}, "disks[0]: state: a number from 0 on expected, -9 found"),
        ({"worker": 5}, "disks[0]: worker: text expected, 5 found"),
        ({"requests": {"read": None}}, "disks[0]: requests['read']: a number expected, None found"),
        ({"more": 1}, "disks[0]: 'more' is not known"),
    ],
)
def test_a_row_with_a_wrong_field_is_refused_with_its_place(tmp_path, capsys, fields, message):
    line = json.dumps({"disks": [disk_row(**fields)]}).encode()
    assert message in refused(tmp_path, capsys, line)


def test_nothing_but_printable_text_reaches_the_terminal(tmp_path, capsys):
    line = json.dumps({"disks": [disk_row(error="\x1b[2J\ndisk", state=99)]}).encode()
    thread = say(tmp_path / "socket", line)
    assert show(tmp_path / "socket") == 0
    thread.join()
    out = capsys.readouterr().out
    assert "?[2J?disk" in out
    assert "state 99" in out
