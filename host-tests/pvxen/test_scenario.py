"""Scenarios: each of host-tests/scenarios, run against the drivers under several seeds.

A driver does all that it was asked rightly, or says in one XenError what happened; it never hangs,
fails otherwise, or gives a wrong answer.
"""

import dataclasses
import struct
from pathlib import Path

import pytest
import yaml
from fixtures.stack import Stack

import hw
from pvxen.faults import Faults
from pvxen.guest import EmbeddedGuest
from pvxen.ringfaults import FAULTS
from pvxen.scenario import Scenario, ScenarioError, parse
from pvxen.sink import Memory
from pvxen.toolstack import Toolstack
from xenpv import abi
from xenpv.block.front import BlkFront
from xenpv.errors import XenError, XenstoreError
from xenpv.gnttab import GrantTable
from xenpv.hypercall import Hypercalls
from xenpv.loop import SECOND
from xenpv.xenbus import Device

FOLDER = Path(__file__).resolve().parents[1] / "scenarios"
SCENARIOS = [Scenario.load(path) for path in sorted(FOLDER.glob("*.yaml"))]
STORE = [scenario for scenario in SCENARIOS if scenario.store]
DISK = [scenario for scenario in SCENARIOS if scenario.disk]
SEEDS = range(8)
LIMIT = 600 * SECOND
BIG = bytes(range(256)) * 7


class Hang(BaseException):
    """More virtual time went by than any driver may need."""


async def use_store(store):
    """A bit of everything, many at a time, and all answers looked at."""
    loop = store.loop
    paths = [f"data/n{i}" for i in range(12)]
    await loop.gather([store.write(path, path * 3) for path in paths])
    assert await loop.gather([store.read(path) for path in paths]) == [
        path.encode() * 3 for path in paths
    ]
    await loop.gather([store.write("data/big", BIG), store.mkdir("data/empty")])
    big, names = await loop.gather([store.read("data/big"), store.directory("data")])
    assert big == BIG
    assert sorted(names) == sorted(["big", "empty", *(f"n{i}" for i in range(12))])
    watch = await store.watch("data/big")
    assert await watch.next(5 * SECOND) == "data/big"
    async with store.transaction() as transaction:
        await transaction.write("data/t", "1")
        assert await transaction.read_int("data/t") == 1
    assert await store.read_int("data/t") == 1
    await watch.close()
    await store.rm("data")


async def use_disk(store):
    """300 KiB written in 25 requests, read again and made to last."""
    ram = hw.mem(0x200000, 75 * 4096)
    ram[:] = bytes(i * 7 & 0xFF for i in range(len(ram)))
    device = Device(store, store.loop, "device/vbd/51728")
    await device.find()
    disk = BlkFront(store.loop, GrantTable(Hypercalls()), device)
    await disk.connect()
    for page in range(0, 75, 3):
        await disk.write(8 + 8 * page, 0x200 + page, 24)
    await disk.drain()
    await disk.read(8, 0x400, 75 * 8)
    await disk.flush()
    assert hw.mem(0x400000, len(ram)) == ram
    await disk.close()


def run(work):
    """Run work(store) in the domain that `hw` is about."""
    stack = Stack()

    async def main():
        await work(stack.store)
        await stack.store.close()

    stack.run(main)


def play(scenario, seed, work, plain=False, **options):
    """Run a driver through a scenario. Returns (the toolstack, the XenError that ended it).

    plain: the disk's backend offers nothing but what it must.
    """
    xen = Toolstack(seed, quotas={"node-size": 0, "outstanding": 0})
    domain = xen.create(1, scenario=scenario, **options)
    domain.disk("xvdb", Memory(1 << 20), plain=plain)

    def hang():
        raise Hang(f"{scenario.name}, seed {seed}")

    xen.clock.after(LIMIT, hang)
    while True:
        try:
            with xen.running(1):
                run(work)
        except XenError as error:
            return xen, error
        if domain.shutdown_reason is None:
            return xen, None
        assert domain.shutdown_reason == abi.SHUTDOWN_soft_reset
        xen.recover(1, scenario.recovery())


def check(scenario, error):
    """Whether it ended as the scenario says."""
    if scenario.outcome == "right" and error is not None:
        raise AssertionError(f"{scenario.name}: should do no harm") from error
    if scenario.outcome == "error":
        assert error is not None, f"{scenario.name}: an error was expected"
        assert scenario.error
        assert scenario.error in str(error)
    # The server never refuses anything here: that would be a wrong answer.
    assert not isinstance(error, XenstoreError)


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", STORE, ids=lambda scenario: scenario.name)
def test_the_client_is_right_or_says_what_happened(scenario, seed):
    xen, error = play(scenario, seed, use_store)
    check(scenario, error)
    if error is None:
        assert not xen.store.exists("/local/domain/1/data")


@pytest.mark.parametrize("events", ["fifo", "dead"])
@pytest.mark.parametrize("scenario", STORE, ids=lambda scenario: scenario.name)
def test_the_client_is_so_where_event_bits_are_dead(scenario, events):
    check(scenario, play(scenario, 1, use_store, events=events)[1])


@pytest.mark.parametrize("plain", [False, True], ids=["full", "plain"])
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("scenario", DISK, ids=lambda scenario: scenario.name)
def test_the_disk_is_right_or_says_what_happened(scenario, seed, plain):
    check(scenario, play(scenario, seed, use_disk, plain)[1])


@pytest.mark.parametrize("scenario", STORE, ids=lambda scenario: scenario.name)
def test_every_fault_of_a_scenario_strikes(scenario, monkeypatch):
    faults = []
    monkeypatch.setattr(Scenario, "faults", lambda self: faults)
    faults.extend(parse_again(scenario))
    play(scenario, 1, use_store)
    assert [fault for fault in faults if not fault.struck] == []


def parse_again(scenario):
    return Scenario.load(FOLDER / f"{scenario.name}.yaml").store


@pytest.mark.parametrize("seed", SEEDS)
def test_a_seed_repeats_a_scenario_to_the_nanosecond(seed):
    scenario = next(scenario for scenario in STORE if scenario.name == "everything-at-once")
    first, second = (play(scenario, seed, use_store)[0] for _ in range(2))
    assert first.clock.now == second.clock.now
    assert first.evtchn.sent == second.evtchn.sent


def test_a_scenario_without_any_fault_on_the_way_is_the_server_itself():
    """The relay, with a fault that never strikes, moves what a plain ring moves."""
    plain = parse({"outcome": "right"}, "plain", "plain")
    relayed = parse(
        {"outcome": "right", "store": [{"fault": "dead", "at": {"time": 10**9}}]}, "", ""
    )
    for scenario in (plain, relayed):
        assert play(scenario, 3, use_store)[1] is None


def test_what_the_server_says_of_a_broken_ring_reaches_the_guest():
    far = {"fault": "dead", "at": {"time": 10**9}}
    ring = {"server-features": abi.XENSTORE_SERVER_FEATURE_ERROR}
    xen = Toolstack()
    domain = xen.create(
        1, scenario=parse({"outcome": "error", "ring": ring, "store": [far]}, "", "")
    )
    page = domain.machine.page(domain.machine.params[abi.HVM_PARAM_STORE_PFN])
    struct.pack_into("<I", page, abi.XENSTORE_RING_REQ_PROD, 5000)
    xen.evtchn.send(1, domain.machine.params[abi.HVM_PARAM_STORE_EVTCHN])
    xen.settle()
    (error,) = struct.unpack_from("<I", page, abi.XENSTORE_RING_ERROR)
    assert error == abi.XENSTORE_ERROR_RINGIDX


def test_every_fault_of_the_ring_is_in_some_scenario():
    used = {type(fault) for scenario in STORE for fault in scenario.store}
    assert [name for name, kind in FAULTS.items() if kind not in used] == []


def test_every_fault_of_a_backend_is_in_some_scenario():
    used = {name for scenario in DISK for name in scenario.disk}
    assert [field.name for field in dataclasses.fields(Faults) if field.name not in used] == []


def test_a_guest_that_is_alone_takes_a_scenario_as_well():
    scenario = parse({"outcome": "error", "store": [{"fault": "dead"}]}, "dead", "dead")
    EmbeddedGuest(scenario=scenario)
    with pytest.raises(XenError, match="no reply within"):
        run(use_store)


def test_every_scenario_says_in_its_first_line_what_it_shows():
    for path in FOLDER.iterdir():
        first = path.read_text().splitlines()[0]
        assert (first[:2], first[-1]) == ("# ", "."), path


class TestSchema:
    def refused(self, text):
        with pytest.raises(ScenarioError) as error:
            parse(yaml.safe_load(text), "name", "x.yaml")
        return str(error.value)

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            (
                "just text",
                "x.yaml: an object with outcome, error, ring, store, disk expected, 'just",
            ),
            ("store: []", "x.yaml: outcome is missing"),
            ("{outcome: good}", "outcome: error or right expected, 'good' found"),
            ("{outcome: right, error: x}", "error: only with outcome: error"),
            ("{outcome: right, disks: {}}", "'disks' is not known; disk, error, outcome, ring"),
            ("{outcome: right, store: {}}", "store: a list expected, {} found"),
            ("{outcome: right, store: [{fault: tron}]}", "store[0]: fault: 'tron' is not known"),
            (
                "{outcome: right, store: [{fault: dead, wait: 1}]}",
                "store[0]: dead: 'wait' is not known; at, times are",
            ),
            ("{outcome: right, store: [{fault: [slow]}]}", "fault: ['slow'] is not known"),
            ("{outcome: right, store: [{fault: slow}]}", "store[0]: slow: wait is missing"),
            (
                "{outcome: right, store: [{fault: slow, wait: long}]}",
                "slow: wait: a number expected, 'long' found",
            ),
            (
                "{outcome: right, store: [{fault: slow, wait: -1}]}",
                "slow: wait: a number from 0 on expected, -1 found",
            ),
            (
                "{outcome: right, store: [{fault: dead, at: {bytes: 1, time: 2}}]}",
                "dead: at: one of bytes or packets or requests or time expected",
            ),
            (
                "{outcome: right, store: [{fault: lost-events, to: me}]}",
                "lost-events: to: guest or server expected, 'me' found",
            ),
            ("{outcome: right, ring: {start: [1]}}", "ring: start: 2 of them expected, [1] found"),
            ("{outcome: right, disk: {dies: yes}}", "disk: dies: a number expected, True found"),
            ("{outcome: right, disk: {reorder: 1}}", "reorder: true or false expected, 1 found"),
        ],
    )
    def test_what_means_nothing_is_refused_with_its_place(self, text, message):
        assert message in self.refused(text)

    @pytest.mark.parametrize("content", [b"{", b"\xff"])
    def test_what_is_no_yaml_is_refused_with_the_file(self, tmp_path, content):
        path = tmp_path / "broken.yaml"
        path.write_bytes(content)
        with pytest.raises(ScenarioError, match=r"broken\.yaml"):
            Scenario.load(path)

    def test_only_what_is_added_may_be_negative_whatever_the_file_is_called(self):
        text = "{outcome: right, store: [{fault: slow, wait: -1}]}"
        with pytest.raises(ScenarioError, match="a number from 0 on expected"):
            parse(yaml.safe_load(text), "add", "add.yaml")

    def test_an_index_may_be_too_small(self):
        entry = {"fault": "index-corruption", "index": "rsp-prod", "add": -1}
        assert parse({"outcome": "error", "store": [entry]}, "", "").store[0].add == -1
