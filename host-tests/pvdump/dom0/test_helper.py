"""The process of root's as a process: verbs side by side, its end and the daemon's."""

import os
import signal
import threading

import pytest

from pvdump.dom0 import helper
from pvdump.dom0.helper import Helper, HelperError
from pvdump.dom0.hypercalls import HypercallError
from pvdump.dom0.verbs import Refused


class Verbs:
    """Verbs that wait for each other, and one that is refused."""

    def __init__(self):
        self._released = threading.Event()

    def do(self, verb, arguments):
        if verb == "wait":
            self._released.wait()
        elif verb == "release":
            self._released.set()
        elif verb == "refuse":
            raise Refused("domain 7 runs")
        return {"pid": os.getpid(), **arguments}


@pytest.fixture
def make():
    made = []

    def make(on_end=lambda: None, verbs=Verbs):
        made.append(Helper(helper.begin(verbs), on_end))
        return made[-1]

    yield make
    for each in made:
        each.close()
        os.wait()


def test_a_verb_is_done_in_a_process_of_its_own(make):
    assert make().ask("state", domid=7)["pid"] != os.getpid()


def test_a_verb_that_takes_long_holds_up_no_other(make):
    asked, answers = make(), []
    thread = threading.Thread(target=lambda: answers.append(asked.ask("wait", domid=7)))
    thread.start()
    assert asked.ask("release", domid=8)["domid"] == 8
    thread.join()
    assert answers[0]["domid"] == 7


def test_a_refusal_is_told(make):
    with pytest.raises(HelperError, match=r"^domain 7 runs$"):
        make().ask("refuse")


def test_a_helper_that_was_killed_ends_what_waits_for_it(make):
    ended = threading.Event()
    asked = make(ended.set)
    pid = asked.ask("state")["pid"]
    errors = []

    def wait():
        with pytest.raises(HelperError, match="helper has ended") as error:
            asked.ask("wait")
        errors.append(error)

    thread = threading.Thread(target=wait)
    thread.start()
    os.kill(pid, signal.SIGKILL)
    thread.join()
    ended.wait()
    assert errors
    with pytest.raises(HelperError, match="helper has ended"):
        asked.ask("state")


def test_signals_to_the_group_do_not_end_it_in_the_middle(make):
    asked = make()
    pid = asked.ask("state")["pid"]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        os.kill(pid, number)
    assert asked.ask("state")["pid"] == pid


def test_where_it_cannot_begin_the_reason_is_told():
    def fail():
        raise HypercallError("Xen 4.99: not known")

    connection = helper.begin(fail)
    with pytest.raises(HelperError, match=r"^Xen 4\.99: not known$"):
        Helper(connection, lambda: None)
    connection.close()
    os.wait()
