"""The image itself in an embedded domain: it does what the firmware does under CPython."""

import random
import re
from pathlib import Path

import pytest
from fixtures import streamreader
from fixtures.placedcrash import Place, extents
from fixtures.smallcrash import SmallCrash

from pvdump.arm.blob import encode
from pvfw import superblock
from pvfw.config import Config, Target
from pvxen.guest import EmbeddedGuest
from pvxen.image import EmbeddedImage
from pvxen.ringfaults import ChangingPage
from pvxen.scenario import Scenario
from pvxen.sink import Memory
from tools.image import build
from xenpv import abi

FOLDER = Path(__file__).resolve().parents[1] / "scenarios"
# What reads the page twice in one go is a question of `hw`: no CPU lets us in between.
SCENARIOS = [
    scenario
    for scenario in map(Scenario.load, sorted(FOLDER.glob("*.yaml")))
    if not any(isinstance(fault, ChangingPage) for fault in scenario.store)
]
# Scenarios in which the image polls for many seconds: a seed takes 20 times as long.
LONG = (
    *("dead-server", "disk-never-connects", "lost-reply", "reply-producer-creeps"),
    *("ring-reset-in-mid-message", "very-slow-server"),
)


def usual(scenario):
    """The number of seeds of a scenario; where the image starts twice, fewer. 502 in all."""
    if scenario.name in LONG:
        return 1
    return 12 if scenario.recovery() is None else 5


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    built = build(tmp_path_factory.mktemp("image"))
    return EmbeddedImage(built.elf.read_bytes(), built.bin.read_bytes())


@pytest.mark.parametrize("features", [0, abi.XENSTORE_SERVER_FEATURE_RECONNECTION])
@pytest.mark.parametrize("door", ["pvh", "bzimage"])
def test_the_self_check_passes_through_both_doors(image, door, features):
    guest = EmbeddedGuest(
        door=door,
        region=(0x400000, 0x800000),
        server_features=features,
        cmdline=b"pvdump.run=check pvdump.disk=xvdb pvdump.then=poweroff",
    )
    disk = Memory(2 << 20)
    disk.data[:512] = superblock.Superblock(bytes(16), len(disk.data)).encode()
    guest.disk("xvdb", disk)
    assert image.run(guest) == abi.SHUTDOWN_poweroff
    assert "pvdump: xenstore: second client" in image.text
    assert "pvdump: disk xvdb: 2 MiB, writable" in image.text
    assert "pvdump: check passed" in image.text
    assert guest.ring.reconnects == 4 * features


@pytest.mark.parametrize("door", ["pvh", "bzimage"])
def test_the_configuration_is_read_through_both_doors(image, door):
    config = Config()
    config.targets, config.then = [Target("xvdb", bytes(16))], "poweroff"
    blob, at = encode(config), 0x900000
    guest = EmbeddedGuest(
        door=door,
        region=(0x400000, 0x800000),
        cmdline=b"pvdump.run=check",
        modules=((at, len(blob)),),
    )
    guest.machine.ram[at : at + len(blob)] = blob
    disk = Memory(2 << 20)
    disk.data[:512] = superblock.Superblock(bytes(16), len(disk.data)).encode()
    guest.disk("xvda", Memory(1 << 20))
    guest.disk("xvdb", disk)
    assert image.run(guest) == abi.SHUTDOWN_poweroff
    assert "pvdump: disk xvdb: 2 MiB, writable" in image.text
    assert "xvda" not in image.text


def test_a_whole_dump_is_that_of_the_firmware_under_cpython(image):
    crash = SmallCrash()
    assert crash.by_image(image) == SmallCrash().by_firmware()
    block = crash.superblock()
    assert (block.state, block.crash_vcpu) == (superblock.COMPLETE, 1)
    assert block.written == block.dump_size > 2 << 20


class PlacedSmallCrash(SmallCrash):
    """A crashed guest with two targets in extents of xvdc, of which the first is too small."""

    def __init__(self):
        line = b"pvdump.then=poweroff elfcorehdr=0x300000"
        super().__init__(cmdline=line, modules=((self.AT, 4096),))
        self.sink = Memory(random.Random(1).randbytes(8 << 20))
        self.guest.disk("xvdc", self.sink)
        pieces = ((100, 10), (8, 14)), ((60, 30), (24, 30), (0, 6))
        uuids = bytes(range(1, 17)), bytes(range(2, 18))
        self.places = [
            Place(self.sink, extents(piece, 65536), "xvdc", uuid)
            for piece, uuid in zip(pieces, uuids, strict=True)
        ]
        config = Config()
        config.targets = [place.wanted for place in self.places]
        blob = encode(config)
        self.guest.machine.ram[self.AT : self.AT + len(blob)] = blob

    AT = 0x690000


def test_a_dump_to_extents_and_to_the_next_target_is_that_of_the_firmware_under_cpython(image):
    crash, other = PlacedSmallCrash(), PlacedSmallCrash()
    assert crash.by_image(image) == other.by_firmware()
    states = [superblock.decode(place.content()[:512]).state for place in crash.places]
    assert states == [superblock.PARTIAL, superblock.COMPLETE]
    for mine, its in zip(crash.places, other.places, strict=True):
        assert streamreader.read(mine.content()).pages == streamreader.read(its.content()).pages
    assert streamreader.read(crash.places[1].content()).whole


def test_the_pv_console_shows_what_port_e9_shows(image):
    SmallCrash().by_image(image)
    assert image.text.startswith("pvdump: crash kernel at 0x3b0000")
    assert image.console == image.text.replace("\n", "\r\n")


def test_a_seed_repeats_a_run_of_the_image_to_the_nanosecond(image):
    scenario = Scenario.load(FOLDER / "everything-at-once.yaml")
    ends = []
    for _ in range(2):
        crash = SmallCrash(scenario, seed=5)
        outcome = crash.by_image(image)
        ends.append((outcome, crash.guest.machine.clock.now, crash.guest.machine.hypercalls))
    assert ends[0] == ends[1]


@pytest.mark.fuzz("image")
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_with_every_fault_the_image_ends_as_the_firmware_under_cpython_does(image, scenario, fuzz):
    whole = SmallCrash().by_firmware()
    for seed in fuzz.seeds(usual(scenario)):
        found = SmallCrash(scenario, seed=seed, ram=image.ram).by_image(image)
        if scenario.recovery() is None:
            assert found == SmallCrash(scenario, seed=seed).by_firmware()
            continue
        # The next kernel starts anew; there it has to come to the end that it has without a fault.
        assert found.stream == whole.stream
        assert (found.reason, found.state, found.reported) == (
            *(whole.reason, whole.state, whole.reported),
        )


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("page", "Trap: #PF at address 0x0, error code 0x0"),
        ("ud", "Trap: #UD, error code 0x0"),
        ("python", "ValueError: pvdump.fault=python"),
    ],
)
def test_a_failure_is_told_with_a_traceback_and_crashes_the_domain(image, kind, says):
    guest = EmbeddedGuest(cmdline=f"pvdump.fault={kind}".encode())
    assert image.run(guest) == abi.SHUTDOWN_crash
    assert says in image.text
    assert re.search(r'File "pvfw/main.py", line \d+, in main', image.text)


def told(crash):
    """What a crash's dump tells, but for its id and what follows from that."""
    found = streamreader.read(bytes(crash.disk.data))
    return found.facts, found.chunks, found.notes, found.log, found.order, found.pages


@pytest.mark.parametrize(
    "line",
    ["pvdump.disk=xvdb", "pvdump.disk=xvdb pvdump.level=log", "pvdump.level=log"],
    ids=["all", "log", "log without a target"],
)
def test_the_image_says_why_a_kernel_died_and_dumps_as_the_firmware_under_cpython_does(image, line):
    def crash():
        made = SmallCrash(cmdline=f"pvdump.then=poweroff elfcorehdr=0x300000 {line}".encode())
        made.die()
        if "disk" not in line:
            block = made.superblock()
            block.state = superblock.COMPLETE
            made.disk.data[:512] = block.encode()
        return made

    dying, same = crash(), crash()
    outcome, expected = dying.by_image(image), same.by_firmware()
    assert "pvdump: why the kernel died: sysrq: Trigger a crash" in outcome.lines
    assert outcome.lines == expected.lines
    assert outcome.reported == expected.reported == ("complete", "")
    assert told(dying) == told(same)
    piece = f"{dying.guest.home}/data/pvdump/log/00"
    assert dying.guest.store.read(piece, "") == same.guest.store.read(piece, "")


def test_the_image_goes_on_after_a_failure_before_it(image):
    image.run(EmbeddedGuest(cmdline=b"pvdump.fault=ud"))
    assert image.run(EmbeddedGuest(cmdline=b"pvdump.run=check")) == abi.SHUTDOWN_poweroff
    assert "check passed" in image.text


def test_the_image_finds_more_than_one_disk_and_takes_the_target(image):
    crash = SmallCrash(cmdline=b"pvdump.then=poweroff elfcorehdr=0x300000")
    crash.guest.disk("xvda", Memory(1 << 20))
    outcome = crash.by_image(image)
    assert outcome.state == superblock.COMPLETE
    assert "pvdump: disk xvda, N MiB: no dump target" in outcome.lines
