"""The host process's side: disks come and go, and what one thread meets no other does."""

import threading
from types import SimpleNamespace

import pytest
from blkback.front import CLOSED, CLOSING, CONNECTED, INITIALISING, OKAY, PAGE, WRITE
from blkback.hostsite import XVDB, Site

from pvdump.blkback.attach import AttachError, attach, detach, given, number_of
from pvdump.blkback.host import AREA
from pvdump.blkback.instance import Instance
from pvdump.blkback.nodes import Nodes
from pvdump.blkback.ports import Stalled
from pvdump.blkback.sink import open_sink
from pvdump.watches.dispatcher import Dispatcher
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport
from xenpv import abi


@pytest.fixture
def site(tmp_path):
    with UnixTransport(Xenstored(), tmp_path / "store") as unix:
        thread = threading.Thread(target=unix.run)
        thread.start()
        with (tmp_path / "disk").open("wb") as stream:
            stream.truncate(1 << 20)
        opened = {}

        def open_or(params, readonly):
            if params in opened:
                return opened[params]()
            return open_sink(str(tmp_path / params), readonly)

        site = Site(unix.path, open_or)
        site.opened, site.folder = opened, tmp_path
        yield site
        site.stop()
        site.tool.close()
        unix.stop()
        thread.join()


def test_a_disk_that_a_toolstack_makes_is_served(site):
    guest = site.create(5).connect()
    guest.write(8, b"\7" * PAGE)
    assert guest.answer() == (7, WRITE, OKAY)
    assert (site.folder / "disk").read_bytes()[PAGE : 2 * PAGE] == b"\7" * PAGE


def test_one_that_was_there_before_is_served_from_where_it_stood(site):
    guest = site.create(5).connect()
    guest.write(8, b"\7" * PAGE)
    assert guest.answer()[2] == OKAY
    site.stop()
    guest.write(16, b"\6" * PAGE)
    site.start()
    assert guest.answer()[2] == OKAY
    assert (site.folder / "disk").read_bytes()[2 * PAGE : 3 * PAGE] == b"\6" * PAGE


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


def test_a_domain_that_is_gone_leaves_no_nodes(site):
    guest = site.create(5).connect()
    site.destroy(5)
    guest.until(f"{guest.back}/frontend", None)
    assert site.create(6).connect()


def soft_reset(site, guest, vm):
    """Do to a domain what xl does. vm: what it is when it has been made again."""
    # Without it nothing is restored before the end.
    site.tool.rm(f"/local/domain/{guest.domid}/vm")
    site.tool.call(lambda client: client.release(guest.domid))
    # What the host makes of that is done when it has found the next domain.
    found, number = threading.Event(), guest.domid + 100
    follower = site.dispatcher.follow(
        lambda domain: found.set() if domain.domid == number else None, lambda domain: None
    )
    site.create(number)
    found.wait()
    follower.close()
    site.tool.rm(f"/local/domain/{guest.domid}")
    guest.until(f"{guest.back}/state", "6")
    # As xenstored does for a domain that is gone.
    site.tool.set_perms(f"{guest.back}/state", [("n", 0)])
    site.tool.write(f"/local/domain/{guest.domid}/vm", vm)
    site.tool.call(lambda client: client.introduce(guest.domid, 1, 1))


def test_a_disk_is_there_again_after_a_soft_reset(site):
    guest = site.create(5).connect()
    soft_reset(site, guest, "/vm/5")
    guest.connect().write(0, b"\1" * PAGE)
    assert guest.answer()[2] == OKAY
    assert ("r", 5) in site.tool.get_perms(f"{guest.back}/state")


def test_a_disk_is_there_again_though_its_domain_was_seen_to_be_gone(site):
    guest = site.create(5).connect()
    site.destroy(5)
    guest.until(f"{guest.back}/frontend", None)
    site.tool.write("/local/domain/5/vm", "/vm/5")
    site.tool.call(lambda client: client.introduce(5, 1, 1))
    guest.connect().write(0, b"\1" * PAGE)
    assert guest.answer()[2] == OKAY


def test_a_disk_is_there_again_though_its_domain_is_found_to_be_gone_when_it_is_not(site):
    guest = site.create(5).connect()
    site.host._vanished(SimpleNamespace(domid=5))
    guest.until(f"{guest.back}/state", str(CONNECTED))
    guest.write(0, b"\1" * PAGE)
    assert guest.answer()[2] == OKAY


def test_nodes_that_are_made_anew_at_once_tell_what_there_is(site):
    guest = site.create(5).connect()
    nodes = Nodes(site.tool)
    sectors, values = nodes.read(f"{guest.back}/sectors"), given(nodes, 5, XVDB)

    async def anew(transaction):
        await transaction.rm(guest.back)
        for key, value in {**values, "state": str(INITIALISING)}.items():
            await transaction.write(f"{guest.back}/{key}", value)

    site.tool.transact(anew)
    guest.until(f"{guest.back}/state", str(CONNECTED))
    assert nodes.read(f"{guest.back}/sectors") == sectors
    guest.write(0, b"\1" * PAGE)
    assert guest.answer()[2] == OKAY


def test_a_disk_is_there_again_though_its_worker_still_leaves(site, monkeypatch):
    writing, leaving, go_on = threading.Event(), threading.Event(), threading.Event()
    sink = open_sink(str(site.folder / "disk"), False)

    def write(offset, buffers):
        writing.set()
        go_on.wait()

    sink.write = write
    site.opened["slow"] = lambda: sink
    guest = site.create(5, "slow").connect()
    guest.write(0, b"\1" * PAGE)
    writing.wait()
    disconnect, restore = Instance.disconnect, site.host._restore_lost

    def disconnect_and_tell(instance):
        disconnect(instance)
        leaving.set()

    def restore_late():
        leaving.wait()
        restore()

    monkeypatch.setattr(Instance, "disconnect", disconnect_and_tell)
    monkeypatch.setattr(site.host, "_restore_lost", restore_late)
    site.host._vanished(SimpleNamespace(domid=5))
    site.opened.clear()
    site.opened["slow"] = lambda: open_sink(str(site.folder / "disk"), False)
    go_on.set()
    guest.until(f"{guest.back}/state", str(CONNECTED))
    assert guest.answer()[2] == OKAY


def test_another_domain_with_the_same_number_does_not_get_the_disk(site):
    first, second = site.create(5).connect(), site.create(6).connect()
    soft_reset(site, first, "/vm/other")
    soft_reset(site, second, "/vm/6")
    # The first is looked at before the second.
    second.connect()
    assert Nodes(site.tool).read(f"{first.front}/backend") is None


def test_what_a_toolstack_wrote_for_the_front_end_stays(site):
    guest = site.create(5).connect()
    nodes = Nodes(site.tool)
    nodes.update(guest.back, {"online": "0", "state": str(CLOSING)})
    site.host._changed(SimpleNamespace(domain=SimpleNamespace(domid=5)))
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
    assert Nodes(site.tool).read(f"{guest.front}/state") is None
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
    sink = open_sink(str(site.folder / "disk"), False)
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
    sink = open_sink(str(site.folder / "disk"), False)
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
        attach(site.tool, domid, name, "disk", False)
