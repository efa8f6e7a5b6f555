"""pvdumpd on a real dispatcher and xenstored, with a domain of the control interface's model."""

import contextlib
import json
import queue

import pytest
from fixtures.libxldevices import Devices
from fixtures.storeserver import serving

from pvdump.dom0.daemon import Daemon
from pvdump.dom0.events import Events, read
from pvdump.dom0.helper import HelperError
from pvdump.dom0.toolstack import XlError
from pvdump.dom0.verbs import Refused
from pvdump.watches.dispatcher import Dispatcher
from pvdump.xenstore.store import Store

UUID = "3f0c1b52-6f61-4b0e-8d2e-0a1b2c3d4e5f"
HOME = "/local/domain/7"


class Asked:
    """The process of root's, in this one."""

    def __init__(self, verbs):
        self._verbs = verbs

    def ask(self, verb, **arguments):
        # What crosses the connection is JSON, and the texts of errors.
        try:
            return json.loads(json.dumps(self._verbs.do(verb, arguments)))
        except (Refused, XlError) as error:
            raise HelperError(str(error)) from None


class Told(Events):
    """Events that a test waits for."""

    def __init__(self, folder):
        super().__init__(folder)
        self.queue = queue.Queue()

    def add(self, *words, **more):
        self.queue.put(super().add(*words, **more))


class Dom0:
    """A dom0 with xenstored, a toolstack and pvdumpd."""

    def __init__(self, path, site, toolstack):
        self.path, self.site, self.store = path, site, toolstack
        self.events = Told(site.folder)
        toolstack.write(f"{HOME}/vm", f"/vm/{UUID}")
        toolstack.write(f"{HOME}/domid", "7")
        toolstack.call(lambda client: client.introduce(7, 1, 1))

    @contextlib.contextmanager
    def daemon(self, asked=Asked):
        asked = asked(self.site.verbs())
        with Store(self.path) as store, Dispatcher(store) as dispatcher:
            daemon = Daemon(dispatcher, store, asked, self.events)
            yield daemon
            dispatcher.close()
            daemon.close()

    def down(self, reason):
        """Have the guest go down, and xenstored tell of it."""
        self.site.domctl.reason = reason
        self.store.call(lambda client: client.resume(7))
        # Another domain that goes makes every client look.
        self.store.call(lambda client: client.introduce(9, 1, 1))
        self.store.call(lambda client: client.release(9))

    def event(self):
        return self.events.queue.get()


@pytest.fixture
def dom0(tmp_path, site, monkeypatch):
    monkeypatch.setattr("pvdump.dom0.daemon.LOOK_SECONDS", 0.05)
    with serving(tmp_path) as path, Store(path) as toolstack:
        yield Dom0(path, site, toolstack)


def test_a_guest_that_panics_is_reset_and_its_end_is_seen_to(dom0):
    dom0.site.domctl.reason = None
    with dom0.daemon():
        dom0.down(5)
        assert dom0.event()["event"] == "panic"
        assert dom0.event()["event"] == "reset"
        dom0.down(0)
        end = dom0.event()
    assert (end["event"], end["reason"], end["action"]) == ("end", 0, "destroy")
    assert (dom0.site.domctl.resets, dom0.site.domctl.ran) == (1, 1)
    assert dom0.site.calls() == ["destroy 7"]


def test_xenstored_and_xenconsoled_are_told_of_the_new_channels(dom0):
    with dom0.daemon():
        assert [dom0.event()["event"] for _ in range(2)] == ["panic", "reset"]
    ports = [dom0.store.read_text(f"{HOME}/{name}/port") for name in ("store", "console")]
    assert ports == ["1", "2"]


def test_a_guest_that_was_down_before_the_start_is_taken_up(dom0):
    with dom0.daemon():
        assert [dom0.event()["event"] for _ in range(2)] == ["panic", "reset"]
    assert dom0.site.domctl.ran == 1


def test_a_daemon_that_is_started_again_sees_to_the_end(dom0):
    with dom0.daemon():
        assert [dom0.event()["event"] for _ in range(2)] == ["panic", "reset"]
    dom0.site.domctl.reason = 3
    with dom0.daemon():
        assert dom0.event()["event"] == "end"
    assert dom0.site.calls() == ["destroy 7"]


def test_a_guest_that_is_not_preserved_is_told_as_lost_with_what_mends_it(dom0):
    dom0.site.configure(on_soft_reset="destroy")
    with dom0.daemon():
        assert dom0.event()["event"] == "panic"
        lost = dom0.event()
    assert (lost["event"], lost["guest"]) == ("lost", "web")
    assert "`pvdump enable` mends it" in lost["why"]
    assert dom0.site.domctl.resets == 0


def test_a_failure_to_end_it_is_told_once_and_the_guest_is_kept(dom0):
    (dom0.site.folder / "code").write_text("1")
    with dom0.daemon():
        assert [dom0.event()["event"] for _ in range(2)] == ["panic", "reset"]
        dom0.down(0)
        failed = dom0.event()
    assert (failed["event"], failed["why"]) == ("failed", "xl destroy 7: exit 1: ")
    assert dom0.events.queue.empty()


def test_a_reset_that_fails_is_tried_again(dom0):
    class Late(Asked):
        refused = False

        def ask(self, verb, **arguments):
            if verb == "reset" and not self.refused:
                self.refused = True
                raise HelperError("not yet")
            return super().ask(verb, **arguments)

    with dom0.daemon(Late):
        assert [dom0.event()["event"] for _ in range(2)] == ["panic", "reset"]
    assert dom0.site.domctl.ran == 1


def test_an_hvm_guest_s_disks_are_closed_once_libxl_waits_for_them(dom0):
    dom0.site.configure(type="hvm")
    dom0.site.domctl.reason = None
    libxl = Devices(dom0.store)
    _, back = libxl.make("vbd", 51712)
    with dom0.daemon():
        dom0.down(5)
        assert dom0.event()["event"] == "panic"
        assert libxl.state(back) == "4"
        libxl.take_away("vbd", 51712)
        closed = dom0.event()
    assert (closed["event"], closed["device"]) == ("closed", back)
    assert libxl.state(back) == "6"


def test_the_status_has_the_guest_and_its_last_event(dom0):
    with dom0.daemon() as daemon:
        assert [dom0.event()["event"] for _ in range(2)] == ["panic", "reset"]
        (row,) = daemon.status().guests
    assert (row.domid, row.name, row.type, row.last) == (7, "web", "pvh", "reset")


def test_events_are_on_disk_as_lines_of_json(dom0):
    with dom0.daemon():
        assert [dom0.event()["event"] for _ in range(2)] == ["panic", "reset"]
    found = list(read(dom0.site.folder))
    assert [event["event"] for event in found] == ["panic", "reset"]
    assert found[0]["time"].endswith("+00:00")
