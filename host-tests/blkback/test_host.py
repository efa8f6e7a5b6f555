"""The host process's side: disks come and go, and what one thread meets no other does."""

import collections
import threading

import pytest
from blkback.front import CLOSED, CLOSING, CONNECTED, INITIALISED, INITIALISING, OKAY, PAGE, WRITE
from blkback.hostsite import XVDB, XVDC, Guest, Site

from pvdump.blkback import device, host
from pvdump.blkback.attach import (
    ATTACH_ID,
    AttachError,
    attach,
    detach,
    given,
    number_of,
    restore,
)
from pvdump.blkback.backendstore import BackendStore
from pvdump.blkback.paths import AREA, ERRORS
from pvdump.blkback.ports import Stalled
from pvdump.blkback.sink import open_sink
from pvdump.watches.dispatcher import Dispatcher
from pvdump.watches.domains import Changes
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport
from xenpv import abi
from xenpv.errors import XenstoreError


@pytest.fixture
def site(tmp_path):
    with UnixTransport(Xenstored(), tmp_path / "store") as unix:
        thread = threading.Thread(target=unix.run)
        thread.start()
        for domid in (5, 6, 7, 105, 106):
            with (tmp_path / f"disk{domid}").open("wb") as stream:
                stream.truncate(1 << 20)
        opened = {}

        def open_or(params, readonly, shared):
            if params in opened:
                return opened[params]()
            try:
                sink = open_sink(str(tmp_path / params), readonly, shared)
            except Stalled:
                site.stalled.set()
                raise
            close = sink.close
            sink.close = lambda: (close(), site.free[params].set())
            return sink

        site = Site(unix.path, open_or)
        site.opened, site.folder = opened, tmp_path
        site.free = collections.defaultdict(threading.Event)  # by name: its sink was closed
        site.stalled = threading.Event()  # a sink could not be opened yet
        yield site
        site.stop()
        site.tool.close()
        unix.stop()
        thread.join()


def test_a_disk_that_a_toolstack_makes_is_served(site):
    guest = site.create(5).connect()
    guest.write(8, b"\7" * PAGE)
    assert guest.answer() == (7, WRITE, OKAY)
    assert (site.folder / "disk5").read_bytes()[PAGE : 2 * PAGE] == b"\7" * PAGE


def test_one_that_was_there_before_is_served_from_where_it_stood(site):
    guest = site.create(5).connect()
    guest.write(8, b"\7" * PAGE)
    assert guest.answer()[2] == OKAY
    site.stop()
    guest.write(16, b"\6" * PAGE)
    site.start()
    assert guest.answer()[2] == OKAY
    assert (site.folder / "disk5").read_bytes()[2 * PAGE : 3 * PAGE] == b"\6" * PAGE


def test_one_that_was_there_before_is_found_before_its_subscription_is_known(site, monkeypatch):
    guest = site.create(5).connect()
    site.stop()
    subscribe = Dispatcher.subscribe

    def subscribe_slowly(dispatcher, path, domain_of, handler, name):
        handled = threading.Event()

        def handle(event):
            handler(event)
            handled.set()

        subscription = subscribe(dispatcher, path, domain_of, handle, name)
        handled.wait(0.1)
        return subscription

    monkeypatch.setattr(Dispatcher, "subscribe", subscribe_slowly)
    site.start()
    guest.write(16, b"\6" * PAGE)
    assert guest.answer()[2] == OKAY


def test_a_disk_that_takes_for_ever_to_open_holds_up_its_own_domain_only(site):
    never = threading.Event()
    begun = threading.Event()

    def hang():
        begun.set()
        never.wait()
        raise OSError(5, "let go")

    site.opened["hangs"] = hang
    site.create(5, "hangs")
    begun.wait()
    guest = site.create(6).connect()
    guest.write(8, bytes(PAGE))
    assert guest.answer()[2] == OKAY
    never.set()


def soft_reset(site, guest, vm):
    """Do to a domain what xl does. vm: of the domain that is there then."""
    home = f"/local/domain/{guest.domid}"

    async def anew(transaction):
        await transaction.rm(home)
        await transaction.write(f"{home}/domid", str(guest.domid))
        await transaction.write(f"{home}/vm", vm)

    site.tool.call(lambda client: client.release(guest.domid))
    site.tool.transact(anew)
    guest.until(f"{guest.back}/state", "6", None)
    if BackendStore(site.tool).read(f"{guest.back}/state") is not None:
        # As xenstored does for a domain that is gone.
        site.tool.set_perms(f"{guest.back}/state", [("n", 0)])
    site.tool.call(lambda client: client.introduce(guest.domid, 1, 1))


class TestSoftReset:
    def test_a_disk_is_there_again(self, site):
        guest = site.create(5).connect()
        soft_reset(site, guest, "/vm/5")
        guest.connect().write(0, b"\1" * PAGE)
        assert guest.answer()[2] == OKAY
        assert ("r", 5) in site.tool.get_perms(f"{guest.back}/state")

    def test_it_is_there_again_though_its_domain_was_seen_to_be_gone(self, site):
        guest = site.create(5).connect()
        site.destroy(5)
        guest.until(f"{guest.back}/frontend", None)
        site.tool.write("/local/domain/5/vm", "/vm/5")
        site.tool.call(lambda client: client.introduce(5, 1, 1))
        guest.connect().write(0, b"\1" * PAGE)
        assert guest.answer()[2] == OKAY

    def test_it_is_there_again_though_its_worker_still_leaves(self, site):
        writing, go_on = threading.Event(), threading.Event()
        sink = open_sink(str(site.folder / "disk5"), False, False)

        def write(offset, buffers):
            writing.set()
            go_on.wait()

        sink.write = write
        site.opened["disk5"] = lambda: sink
        guest = site.create(5).connect()
        guest.write(0, b"\1" * PAGE)
        writing.wait()
        site.destroy(5)
        guest.until(f"{guest.back}/frontend", None)
        site.tool.write("/local/domain/5/vm", "/vm/5")
        site.tool.call(lambda client: client.introduce(5, 1, 1))
        guest.until(f"{guest.back}/frontend", guest.front)
        site.opened.clear()
        go_on.set()
        guest.connect().write(0, b"\1" * PAGE)
        assert guest.answer()[2] == OKAY

    def test_nodes_that_are_made_anew_at_once_tell_what_there_is(self, site):
        guest = site.create(5).connect()
        nodes = BackendStore(site.tool)
        sectors, values = nodes.read(f"{guest.back}/sectors"), given(nodes, 5, XVDB)
        make_anew(site, guest, values)
        guest.until(f"{guest.back}/state", str(CONNECTED))
        assert nodes.read(f"{guest.back}/sectors") == sectors
        guest.write(0, b"\1" * PAGE)
        assert guest.answer()[2] == OKAY

    def test_another_domain_with_the_same_number_does_not_get_the_disk(self, site):
        first, second = site.create(5).connect(), site.create(6).connect()
        soft_reset(site, first, "/vm/other")
        soft_reset(site, second, "/vm/6")
        second.connect()
        first.until(first.back, None)
        assert BackendStore(site.tool).read(f"{first.front}/backend") is None

    def test_a_guest_that_keeps_its_own_from_being_made_again_delays_no_other(
        self, site, monkeypatch
    ):
        # One that writes to its `backend` node all the time does so.
        refusals = iter(range(2))

        def restore_or_not(store, domid, number, values):
            if domid == 5 and next(refusals, None) is not None:
                raise XenstoreError("transaction, 16 times", "EAGAIN")
            return restore(store, domid, number, values)

        monkeypatch.setattr(host, "restore", restore_or_not)
        monkeypatch.setattr(host, "RETRY", 1000)
        first, second = site.create(5).connect(), site.create(6).connect()
        soft_reset(site, first, "/vm/5")
        soft_reset(site, second, "/vm/6")
        for guest in (second, first):
            guest.connect().write(0, b"\1" * PAGE)
            assert guest.answer()[2] == OKAY

    def test_what_is_known_of_domains_that_are_gone_is_bounded_and_costs_others_nothing(self, site):
        site.create(5).connect()
        values = given(BackendStore(site.tool), 5, XVDB)
        for domid in range(1000, 2000):
            site.host._keep(domid, XVDB, values)
        assert len(site.host._lost) == host.LOST_MAX
        threads = []
        call = site.store.call
        site.store.call = lambda work: (threads.append(threading.get_ident()), call(work))[1]
        site.host._domains_changed(None)
        assert threads.count(threading.get_ident()) < 10


def make_anew(site, guest, values):
    """Make the nodes of a disk again, with nothing between the old and the new ones."""

    async def anew(transaction):
        await transaction.rm(guest.back)
        for key, value in {**values, "state": str(INITIALISING)}.items():
            await transaction.write(f"{guest.back}/{key}", value)

    site.tool.transact(anew)


class TestDomainThatIsGone:
    def test_it_leaves_no_nodes(self, site):
        guest = site.create(5).connect()
        site.destroy(5)
        guest.until(AREA + "/5", None)
        assert site.create(6).connect()

    def test_its_nodes_and_its_sink_are_let_go_though_it_went_while_nobody_served(self, site):
        guest = site.create(5).connect()
        site.stop()
        site.destroy(5)
        site.opened["disk5"] = lambda: pytest.fail("it is opened")
        site.start()
        guest.until(AREA + "/5", None)

    def test_one_that_came_and_went_while_nobody_served_leaves_no_nodes(self, site):
        site.stop()
        site.opened["disk5"] = lambda: pytest.fail("it is opened")
        guest = site.create(5)
        site.destroy(5)
        site.start()
        guest.until(AREA + "/5", None)
        assert site.create(6).connect()

    def test_the_next_one_of_its_number_does_not_get_its_disk(self, site):
        guest = site.create(5).connect()
        site.stop()
        site.destroy(5)
        site.make(5, "/vm/other")
        for key, value in (("ring-ref", "0"), ("event-channel", "1"), ("state", "3")):
            site.tool.write(f"{guest.front}/{key}", value)
        site.opened["disk5"] = lambda: pytest.fail("it is opened")
        site.start()
        guest.until(AREA + "/5", None)

    def test_the_next_one_of_its_number_may_have_a_disk_of_its_own(self, site):
        site.create(5).connect()
        site.stop()
        site.destroy(5)
        site.make(5, "/vm/other")
        attach(site.tool, 5, "xvdb", "disk6", False)
        site.start()
        guest = Guest(site.tool, site.xen, 5).connect()
        guest.write(0, b"\2" * PAGE)
        assert guest.answer()[2] == OKAY
        assert (site.folder / "disk6").read_bytes()[:PAGE] == b"\2" * PAGE
        assert (site.folder / "disk5").read_bytes()[:PAGE] == bytes(PAGE)

    def test_those_that_the_dispatcher_never_saw_leave_no_nodes(self, site):
        site.create(7).connect()
        # It lists the domains now and then, and these live too briefly.
        site.dispatcher._domains.refresh = lambda released: Changes()
        for domid in range(100, 120):
            site.create(domid, "disk6")
            site.destroy(domid)
        for domid in range(100, 120):
            site.until(f"{AREA}/{domid}", None)
        assert site.tool.directory(AREA) == ["7"]

    def test_its_errors_are_removed(self, site):
        guest = site.create(5)
        site.tool.write(f"{guest.front}/ring-ref", "x")
        guest.say(INITIALISED, CLOSING)
        assert site.tool.directory(ERRORS) == ["5"]
        site.destroy(5)
        guest.until(f"{ERRORS}/5", None)

    def test_its_errors_are_removed_though_it_went_while_nobody_served(self, site):
        guest = site.create(5)
        site.tool.write(f"{guest.front}/ring-ref", "x")
        guest.say(INITIALISED, CLOSING)
        site.stop()
        site.destroy(5)
        site.tool.rm(f"{AREA}/5")
        site.start()
        guest.until(f"{ERRORS}/5", None)

    def test_an_error_of_a_disk_that_was_taken_away_is_removed(self, site):
        guest = site.create(5)
        site.tool.write(f"{guest.front}/ring-ref", "x")
        guest.say(INITIALISED, CLOSING)
        detach(site.tool, 5, "xvdb", force=True)
        assert site.tool.directory(f"{ERRORS}/5") == []


class TestOneDisksErrorIsItsOwn:
    def test_a_state_that_is_no_number_keeps_no_other_disk_from_being_taken_away(self, site):
        guest = site.create(5).connect()
        attach(site.tool, 5, "xvdc", "disk6", False)
        other = Guest(site.tool, site.xen, 5, XVDC)
        other.until(f"{other.back}/state", "2")
        site.tool.write(f"{guest.front}/state", b"\xb2")
        detach(site.tool, 5, "xvdc", force=True)
        site.free["disk6"].wait()

    def test_a_disk_that_raises_keeps_no_other_from_being_served(self, site, caplog):
        site.opened["bug"] = lambda: 1 // 0
        site.create(5, "bug")
        attach(site.tool, 5, "xvdc", "disk6", False)
        Guest(site.tool, site.xen, 5, XVDC).connect()
        assert f"disk 5/{XVDB}: ZeroDivisionError" in caplog.text


def test_a_disk_that_is_given_anew_at_once_has_its_new_sink(site):
    guest = site.create(5).connect()
    values = given(BackendStore(site.tool), 5, XVDB)
    make_anew(site, guest, {**values, "params": "disk6", ATTACH_ID: "another"})
    site.free["disk5"].wait()
    guest.say(CLOSED, CLOSED)
    guest.say(INITIALISING, 2)
    guest.connect().write(0, b"\2" * PAGE)
    assert guest.answer()[2] == OKAY
    assert (site.folder / "disk6").read_bytes()[:PAGE] == b"\2" * PAGE


def test_a_file_that_another_guest_has_is_waited_for(site, monkeypatch):
    monkeypatch.setattr(device, "OPEN_REST", 1_000_000)
    site.create(5).connect()
    guest = site.create(6, "disk5")
    site.stalled.wait()
    detach(site.tool, 5, "xvdb", force=True)
    guest.connect().write(0, b"\1" * PAGE)
    assert guest.answer()[2] == OKAY


def test_a_worker_whose_thread_is_refused_once_is_started_again(site, monkeypatch):
    start, refusals = threading.Thread.start, iter(range(1))

    def start_or_not(thread):
        if thread.name == f"5/{XVDB}" and next(refusals, None) is not None:
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_or_not)
    guest = site.create(5).connect()
    guest.write(0, b"\1" * PAGE)
    assert guest.answer()[2] == OKAY


def test_what_a_toolstack_wrote_for_the_front_end_stays(site):
    guest = site.create(5).connect()
    nodes = BackendStore(site.tool)
    nodes.update(guest.back, {f"{guest.back}/online": "0", f"{guest.back}/state": str(CLOSING)})
    site.host._attend(5)
    assert nodes.read(f"{guest.back}/state") == str(CLOSING)


def test_a_disk_is_detached_when_the_guest_lets_go(site):
    guest = site.create(5).connect()

    def let_go():
        guest.until(f"{guest.back}/state", "5")
        site.tool.write(f"{guest.front}/state", str(CLOSED))

    thread = threading.Thread(target=let_go)
    thread.start()
    detach(site.tool, 5, "xvdb", force=False)
    thread.join()
    assert BackendStore(site.tool).read(f"{guest.front}/state") is None
    assert site.tool.directory(f"{AREA}/5") == []


def test_a_disk_that_no_driver_has_is_detached(site):
    guest = site.create(5)
    guest.until(f"{guest.back}/state", "2")
    detach(site.tool, 5, "xvdb", force=False)
    assert site.tool.directory(f"{AREA}/5") == []


def test_a_disk_that_its_driver_has_closed_is_detached(site):
    guest = site.create(5).connect()
    guest.say(CLOSED, CLOSED)
    detach(site.tool, 5, "xvdb", force=False)
    assert site.tool.directory(f"{AREA}/5") == []


def test_after_a_reconnect_the_disk_goes_on(site):
    guest = site.create(5).connect()
    guest.say(CLOSED, CLOSED)
    guest.say(INITIALISING, 2)
    guest.connect().write(0, b"\1" * PAGE)
    assert guest.answer()[2] == OKAY


def test_a_ring_that_is_corrupt_ends_its_worker_and_says_so(site):
    guest = site.create(5).connect()
    guest.ring.memory.wr32(abi.SRING_REQ_PROD, 1 << 20)
    site.xen.channels[5].kick()
    guest.until(f"{guest.back}/state", "5")
    error = f"/local/domain/0/error/backend/pvdump_vbd/5/{XVDB}/error"
    assert b"req_prod 0x100000" in site.tool.read(error)


def test_a_worker_whose_disk_stalls_tries_again(site):
    sink = open_sink(str(site.folder / "disk5"), False, False)
    write, stalls = sink.write, iter(range(3))

    def stalling(offset, buffers):
        if next(stalls, None) is not None:
            raise Stalled("busy")
        write(offset, buffers)

    sink.write = stalling
    site.opened["stalls"] = lambda: sink
    guest = site.create(5, "stalls").connect()
    guest.write(8, b"\7" * PAGE)
    assert guest.answer()[2] == OKAY


def test_a_worker_that_breaks_gives_everything_back(site, caplog):
    sink = open_sink(str(site.folder / "disk5"), False, False)
    sink.write = lambda offset, buffers: 1 // 0
    site.opened["bug"] = lambda: sink
    guest = site.create(5, "bug").connect()
    guest.write(8, b"\7" * PAGE)
    guest.until(f"{guest.back}/state", "5")


def test_the_status_tells_what_each_disk_did(site):
    guest = site.create(5).connect()
    guest.write(8, bytes(PAGE))
    guest.answer()
    (disk,) = site.host.status().json()["disks"]
    assert (disk["disk"], disk["written"], disk["errors"]) == (f"5/{XVDB}", PAGE, 0)


@pytest.mark.parametrize(
    ("name", "number"), [("xvda", 51712), ("xvdp", 51952), ("xvdq", 1 << 28 | 16 << 8)]
)
def test_disks_have_the_numbers_of_xen_vbd_interface(name, number):
    assert number_of(name) == number


@pytest.mark.parametrize(("domid", "name"), [(9, "xvdb"), (5, "sda"), (5, "xvdb")])
def test_what_cannot_be_attached_is_refused(site, domid, name):
    site.create(5)
    with pytest.raises(AttachError):
        attach(site.tool, domid, name, "disk5", False)
