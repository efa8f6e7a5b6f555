"""The dispatcher and the command over a real connection: our xenstored on a unix socket."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures import storeserver
from watches.fakes import Followed, Handler

from pvdump.watches.dispatcher import Dispatcher
from pvdump.watches.pattern import Pattern
from pvdump.watches.server import ask
from pvdump.watches.status import Status
from pvdump.xenstore.store import Store
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport

ROOT = Path(__file__).resolve().parents[2]
BASE = "/local/domain"
PATTERN = Pattern(f"{BASE}/*/data/state")


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    """Where a xenstored listens."""
    # Over 1000 domains need more nodes than the guests' quota, which domain 0 does not have.
    with storeserver.serving(tmp_path) as path:
        yield path


@pytest.fixture
def store(path: Path) -> Iterator[Store]:
    with Store(path) as store:
        yield store


@pytest.fixture
def other(path: Path) -> Iterator[Store]:
    """A second client, such as a toolstack."""
    with Store(path) as store:
        yield store


def create(store: Store, domid: int) -> None:
    store.write(f"{BASE}/{domid}/vm", f"/vm/{domid}")
    store.call(lambda client: client.introduce(domid, 1, 1))


def destroy(store: Store, domid: int) -> None:
    store.rm(f"{BASE}/{domid}")
    store.call(lambda client: client.release(domid))


def test_domains_are_followed(store: Store, other: Store) -> None:
    followed = Followed()
    with Dispatcher(store) as dispatcher:
        dispatcher.follow(followed.appeared, followed.vanished)
        create(other, 7)
        assert followed.next() == ("appeared", 7, 1)
        destroy(other, 7)
        assert followed.next() == ("vanished", 7, 1)
        create(other, 7)
        assert followed.next() == ("appeared", 7, 2)


def test_more_domains_than_one_message_names_are_found(store: Store, other: Store) -> None:
    for domid in range(1200):
        other.write(f"{BASE}/{domid}/vm", "/vm")
    followed = Followed()
    with Dispatcher(store) as dispatcher:
        dispatcher.follow(followed.appeared, followed.vanished)
        assert {followed.next()[1] for _ in range(1200)} == set(range(1200))
        assert len(dispatcher.status().rows) == 1202


def test_stalled_handler_holds_up_its_own_domain_only(store: Store, other: Store) -> None:
    handler = Handler()
    with Dispatcher(store) as dispatcher:
        dispatcher.subscribe(PATTERN.base, PATTERN.domain_of, handler)
        first = handler.called()  # a watch fires when it is made
        assert (first.event.path, first.event.domain) == (BASE, None)
        other.write(f"{BASE}/7/data/state", "1")
        stalled = handler.called()
        other.write(f"{BASE}/8/data/state", "1")
        call = handler.called()
        assert call.event.path == f"{BASE}/8/data/state"
        for each in (first, stalled, call):
            each.go()


def test_closed_subscription_is_told_nothing_more(store: Store, other: Store) -> None:
    handler, later = Handler(), Handler()
    with Dispatcher(store) as dispatcher:
        subscription = dispatcher.subscribe(PATTERN.base, PATTERN.domain_of, handler)
        handler.called().go()
        subscription.close()
        dispatcher.subscribe(PATTERN.base, PATTERN.domain_of, later)
        later.called().go()
        other.write(f"{BASE}/7/data/state", "1")
        later.called().go()
        assert handler.idle()


def test_a_transaction_over_many_domains_loses_none(store: Store, other: Store) -> None:
    handler = Handler()
    with Dispatcher(store) as dispatcher:
        dispatcher.subscribe(PATTERN.base, PATTERN.domain_of, handler)
        handler.called().go()

        async def write(transaction: object) -> None:
            for domid in range(500):
                await transaction.write(f"{BASE}/{domid}/data/state", "1")  # type: ignore[attr-defined]

        other.transact(write)
        paths = set()
        while len(paths) < 500:
            call = handler.called()
            paths.add(call.event.path)
            call.go()
        assert paths == {f"{BASE}/{domid}/data/state" for domid in range(500)}


# The command, as a program.


def pvdump(*arguments: str) -> subprocess.Popen[str]:
    path = os.pathsep.join(str(ROOT / name) for name in ("host", "drivers", "firmware"))
    return subprocess.Popen(
        [sys.executable, "-m", "pvdump", *arguments],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(path: Path, status: Path, script: str) -> subprocess.Popen[str]:
    run = ["watches", "run", "--store", str(path), "--status", str(status)]
    return pvdump(*run, f"{BASE}/*/data/state", "--", "/bin/sh", "-c", script)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_run_show_and_end(path: Path, other: Store, tmp_path: Path, number: int) -> None:
    other.write(f"{BASE}/7/data/state", "complete")
    status = tmp_path / "status"
    os.mkfifo(tmp_path / "gate")
    hang = f"read x < {tmp_path / 'gate'}"
    script = f'echo "$PVDUMP_DOMID $PVDUMP_VALUE"; [ $PVDUMP_DOMID = 7 ] || {hang}'
    with start(path, status, script) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "7 complete\n"
        create(other, 9)
        other.write(f"{BASE}/9/data/state", "hangs")
        assert process.stdout.readline() == "9 hangs\n"
        with pvdump("watches", "show", str(status)) as show:
            table, wrong = show.communicate()
        assert (show.returncode, wrong) == (0, "")
        assert f"{BASE}/9/data/state" in table
        with pvdump("watches", "show", "--json", str(status)) as show:
            rows = json.loads(show.communicate()[0])["rows"]
        assert [row["path"] for row in rows if row["domid"] == 9] == [f"{BASE}/9/data/state"]
        assert [row.handler for row in ask(status, Status).rows if row.domid == 9] == ["/bin/sh"]
        process.send_signal(number)
        out, wrong = process.communicate()
    assert (process.returncode, out, wrong) == (0, "", "")
    assert not status.exists()


def test_run_ends_with_its_store(tmp_path: Path) -> None:
    with UnixTransport(Xenstored(), tmp_path / "store") as unix:
        thread = threading.Thread(target=unix.run)
        thread.start()
        with Store(unix.path) as store:
            store.write(f"{BASE}/7/data/state", "1")
        process = start(unix.path, tmp_path / "status", "echo here")
        assert process.stdout is not None
        assert process.stdout.readline() == "here\n"
        unix.stop()
        thread.join()
    _, wrong = process.communicate()
    assert process.returncode == 1
    assert "pvdump watches: the store ended" in wrong
    assert not (tmp_path / "status").exists()


@pytest.mark.parametrize(
    ("arguments", "wrong"),
    [
        (("run", "/local/domain/7", "--", "true"), "none of its names is *"),
        (("run", "/local/domain/*", "--", "/no/such/program"), "no such program"),
        (("run", "--store", "/no/such/store", "/local/domain/*", "--", "true"), "/no/such/store"),
        (("show", "/no/such/socket"), "is its process running"),
    ],
)
def test_refusal_is_one_line_on_standard_error(arguments: tuple[str, ...], wrong: str) -> None:
    with pvdump("watches", *arguments) as process:
        out, said = process.communicate()
    assert (process.returncode, out, said.count("\n")) == (1, "", 1)
    assert said.startswith("pvdump watches: ")
    assert wrong in said
