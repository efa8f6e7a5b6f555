"""The status of the queues, and the socket that serves it."""

from __future__ import annotations

import json
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from watches.fakes import Clock, FakeStore, Followed, Handler, domain_of

from pvdump.service.records import build
from pvdump.watches.dispatcher import Dispatcher
from pvdump.watches.queues import Queues
from pvdump.watches.server import CLIENTS, REQUEST_MAX, StatusError, StatusServer, ask
from pvdump.watches.status import Row, Status, text

Make = Callable[..., Dispatcher]
REQUEST = b'{"command": "status"}\n'


def row(**fields: object) -> Row:
    """A sleeping domain's row, but for the fields given."""
    nothing = dict.fromkeys(("queued", "handled", "dropped", "failed"), 0)
    absent = dict.fromkeys(("oldest", "handler", "path", "running_for"))
    domain = {"queue": "domain", "domid": 7, "generation": 1, "gone": False}
    return Row(**{**domain, **nothing, **absent, **fields})  # type: ignore[arg-type]


STATUS = Status([row()], workers=2, idle=1, refused=0)


def test_row_of_a_domain_whose_handler_stalls(
    store: FakeStore, dispatcher: Dispatcher, clock: Clock
) -> None:
    handler = Handler()
    dispatcher.subscribe("/data", domain_of, handler, "slow")
    store.fire("/data/7/a", "/data")
    call = handler.called()
    clock.advance(2)
    store.fire("/data/7/b", "/data")
    clock.advance(1.5)
    store.fire("/data/7/c", "/data")
    assert dispatcher.status().rows[-1] == row(
        queued=2, oldest=1.5, handler="slow", path="/data/7/a", running_for=3.5
    )
    call.go()
    for _ in range(2):
        handler.called().go()


def test_row_counts_what_was_handled_and_what_failed(store: FakeStore, make: Make) -> None:
    dispatcher, handler, followed = make(wait=lambda wake: False), Handler(), Followed()
    dispatcher.follow(followed.appeared, followed.vanished)
    store.create(7)
    assert followed.next() == ("appeared", 7, 1)
    dispatcher.subscribe("/data", domain_of, handler)
    store.fire("/data/7/a", "/data")
    store.fire("/data/7/b", "/data")
    handler.called().go(lambda: [][1])
    last = handler.called()
    last.go()
    last.thread.join()
    assert dispatcher.status().rows[-1] == row(handled=3, failed=1)


def test_sleeping_domains_have_rows(store: FakeStore, dispatcher: Dispatcher) -> None:
    followed = Followed()
    dispatcher.follow(followed.appeared, followed.vanished)
    store.create(0)
    store.create(7)
    followed.next()
    followed.next()
    rows = dispatcher.status().rows
    assert [(row.queue, row.domid) for row in rows] == [
        ("no domain", None),
        ("domains", None),
        ("domain", 0),
        ("domain", 7),
    ]


def test_domain_that_is_gone_has_a_row_while_its_handler_stalls(
    store: FakeStore, dispatcher: Dispatcher
) -> None:
    followed, handler = Followed(), Handler()
    dispatcher.follow(followed.appeared, followed.vanished)
    dispatcher.subscribe("/data", domain_of, handler)
    store.create(7)
    followed.next()
    store.fire("/data/7/a", "/data")
    stalled = handler.called()
    store.destroy(7)
    store.create(8)
    followed.next()
    assert [(row.domid, row.gone) for row in dispatcher.status().rows[2:]] == [
        (7, True),
        (8, False),
    ]
    stalled.go()
    followed.next()


def test_queue_of_a_domain_that_is_gone_stays_until_its_handler_has_ended(clock: Clock) -> None:
    queues = Queues(8, clock, lambda queue: None)
    queues.appear(7)
    queue = queues.of(7)
    queue.busy = True
    queues.vanish(7)
    assert queue in list(queues.all())
    queues.drained(queue)
    assert queue not in list(queues.all())


def test_table_has_a_line_for_each_queue() -> None:
    status = Status(
        [
            row(queue="no domain", domid=None, generation=None),
            row(queued=12, oldest=61.04, handler="slow", path="/data/7/a", running_for=75.0),
            row(domid=12, gone=True, dropped=3),
        ],
        workers=3,
        idle=1,
        refused=2,
    )
    assert text(status).splitlines() == [
        "domain     queued  oldest  handled  dropped  failed  running    for  path",
        "no domain       0       -        0        0       0  -            -  -",
        "7              12   61.0s        0        0       0  slow     75.0s  /data/7/a",
        "12 (gone)       0       -        0        3       0  -            -  -",
        "3 workers, 1 idle, 2 times the system refused one",
    ]


def test_table_prints_no_control_characters() -> None:
    assert "\x1b" not in text(Status([row(handler="\x1b[2J", path="/a\nb")], 1, 0, 0))
    assert len(text(Status([row(path="/a\nb")], 1, 0, 0)).splitlines()) == 3


def test_status_survives_json() -> None:
    status = Status([row(oldest=1.5, handler="x")], 1, 0, 0)
    assert build(Status, json.loads(json.dumps(status.json()))) == status


@pytest.mark.parametrize(
    "value",
    [
        [],
        {"rows": []},
        {**STATUS.json(), "rows": {}},
        {**STATUS.json(), "rows": [{}]},
        {**STATUS.json(), "workers": "2"},
        {**STATUS.json(), "rows": [{**row().__dict__, "domid": "7"}]},
    ],
)
def test_what_is_no_status_is_refused(value: object) -> None:
    with pytest.raises(ValueError):
        build(Status, value)


# The socket.


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "status"


def connect(path: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(str(path))
    return connection


def line(connection: socket.socket) -> object:
    with connection.makefile("rb") as stream:
        return json.loads(stream.readline())


def test_socket_gives_the_status(path: Path) -> None:
    with StatusServer(path, lambda: STATUS):
        assert ask(path, Status) == STATUS


def test_socket_is_its_owners_alone_and_removed_at_the_end(path: Path) -> None:
    with StatusServer(path, lambda: STATUS):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(path.parent.iterdir()) == []


def test_one_connection_may_ask_many_times(path: Path) -> None:
    with StatusServer(path, lambda: STATUS), connect(path) as connection:
        for _ in range(3):
            connection.sendall(REQUEST)
            assert line(connection) == STATUS.json()


def test_requests_at_once_are_answered_one_by_one(path: Path) -> None:
    with StatusServer(path, lambda: STATUS), connect(path) as connection:
        connection.sendall(3 * REQUEST)
        with connection.makefile("rb") as stream:
            assert [json.loads(stream.readline()) for _ in range(3)] == 3 * [STATUS.json()]


@pytest.mark.parametrize(
    "request_",
    [
        b"\n",
        b"status\n",
        b'{"command": "stop"}\n',
        b"\xff\xfe\n",
        b"[" * 1000 + b"\n",
        b"x" * (REQUEST_MAX + 1),
    ],
)
def test_wrong_request_is_answered_with_an_error(path: Path, request_: bytes) -> None:
    with StatusServer(path, lambda: STATUS):
        with connect(path) as connection:
            connection.sendall(request_)
            reply = line(connection)
        assert isinstance(reply, dict)
        assert set(reply) == {"error"}
        assert ask(path, Status) == STATUS


def test_client_that_does_not_read_holds_up_nobody(path: Path) -> None:
    big = Status(2000 * [row(path="/data/" + "x" * 1000)], 1, 0, 0)
    with StatusServer(path, lambda: big), connect(path) as slow:
        slow.sendall(REQUEST)
        assert ask(path, Status) == big
        assert line(slow) == big.json()


def test_of_too_many_clients_the_most_silent_is_let_go(path: Path) -> None:
    with StatusServer(path, lambda: STATUS):
        clients = [connect(path) for _ in range(CLIENTS)]
        for client in clients[1:]:
            client.sendall(REQUEST)
            line(client)
        assert ask(path, Status) == STATUS
        assert clients[0].recv(1) == b""
        clients[-1].sendall(REQUEST)
        assert line(clients[-1]) == STATUS.json()
        for client in clients:
            client.close()


def test_client_that_leaves_in_the_middle_holds_up_nobody(path: Path) -> None:
    with StatusServer(path, lambda: STATUS):
        with connect(path) as connection:
            connection.sendall(REQUEST[:5])
        assert ask(path, Status) == STATUS


def test_what_a_killed_process_left_is_replaced(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(path))
    with StatusServer(path, lambda: STATUS):
        assert ask(path, Status) == STATUS


def test_living_socket_and_other_files_are_not_replaced(path: Path) -> None:
    with StatusServer(path, lambda: STATUS):
        with pytest.raises(StatusError, match="another server listens"):
            StatusServer(path, lambda: STATUS)
        assert ask(path, Status) == STATUS
    path.write_text("precious")
    with pytest.raises(StatusError, match="no socket"):
        StatusServer(path, lambda: STATUS)
    assert path.read_text() == "precious"


def test_asking_where_nobody_is_says_so(path: Path) -> None:
    with pytest.raises(StatusError, match="is its process running"):
        ask(path, Status)


def test_asking_a_stranger_says_that_it_is_none(path: Path) -> None:
    stranger = Status([], 1, 0, "many")  # type: ignore[arg-type]
    with (
        StatusServer(path, lambda: stranger),
        pytest.raises(StatusError, match="a number expected"),
    ):
        ask(path, Status)


def test_client_that_no_descriptor_was_left_for_is_served_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pvdump.watches.server.RETRY", 0.0)
    accept, refused = socket.socket.accept, []

    def refuse_once(listener: socket.socket) -> object:
        if not refused:
            refused.append(True)
            raise OSError(24, "Too many open files")
        return accept(listener)

    monkeypatch.setattr(socket.socket, "accept", refuse_once)
    with StatusServer(path, lambda: STATUS):
        assert ask(path, Status) == STATUS
    assert refused
