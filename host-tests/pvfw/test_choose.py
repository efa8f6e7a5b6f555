"""The dump finds its disk: the first of those in question that is a target and takes it."""

import pytest
from fixtures.stack import Stack

import hw
from pvfw import superblock
from pvfw.choose import choose
from pvfw.config import Target
from pvfw.errors import TargetRefused
from pvfw.target import find
from pvxen.guest import EmbeddedGuest
from pvxen.sink import Memory
from xenpv import abi
from xenpv.errors import XenError
from xenpv.loop import SECOND

MIB = 1 << 20
DUMP = 2 * MIB
SIZE = 4 * MIB


def signed(state=superblock.READY, size=SIZE):
    """The content of a disk that is a target."""
    block = superblock.Superblock(bytes(16), size)
    block.state = state
    return block.encode() + bytes(size - superblock.SUPERBLOCK_SIZE)


class Disks:
    """A guest whose disks have such contents and faults: (name, content, faults)."""

    def __init__(self, *disks):
        self.guest = EmbeddedGuest()
        self.sinks = {}
        self.backs = {}
        for name, content, faults in disks:
            self.sinks[name] = Memory(content)
            self.backs[name] = self.guest.disk(name, self.sinks[name], **faults)
        self.before = {name: bytes(sink.data) for name, sink in self.sinks.items()}

    def choose(self, names=()):
        """The disk to try first; the lines said are in `said`."""
        return str(self.all(names)[0])

    def all(self, names=()):
        """The targets to try, in order."""
        stack = Stack()
        self.said = []

        def work():
            targets = [Target(name) if isinstance(name, str) else name for name in names]
            return choose(stack.store, stack.grants, targets, DUMP, self.said.append)

        try:
            return stack.run(work)
        finally:
            assert {name: bytes(sink.data) for name, sink in self.sinks.items()} == self.before


ROOT = ("xvda", 4 * MIB, {})
FIRST = ("xvdb", signed(), {})
SECOND_ONE = ("xvdc", signed(), {})


def test_the_only_target_among_the_disks_is_found_without_being_named():
    disks = Disks(ROOT, SECOND_ONE)
    assert disks.choose() == "xvdc"
    assert disks.said == [
        "disk xvda, 4 MiB: no dump target",
        "disk xvdc, 4 MiB: a dump target, ready",
    ]


@pytest.mark.parametrize(
    ("names", "chosen"),
    [([], "xvdb"), (["xvdc", "xvdb"], "xvdc"), (["xvda", "xvdc"], "xvdc"), (["xvdc"], "xvdc")],
)
def test_of_several_the_first_in_the_order_asked_for_is_taken(names, chosen):
    assert Disks(ROOT, FIRST, SECOND_ONE).choose(names) == chosen


def test_the_disks_are_left_as_they_were_found():
    disks = Disks(ROOT, FIRST, SECOND_ONE)
    disks.choose()
    disks.guest.settle()
    assert disks.guest.machine.gnttab.mappings == []
    for back in disks.backs.values():
        assert back.states[-2:] == [abi.XenbusStateClosed, abi.XenbusStateInitWait]


def test_a_disk_that_nobody_named_is_not_looked_at():
    disks = Disks(ROOT, FIRST, SECOND_ONE)
    disks.choose(["xvdb", "xvdc"])
    assert disks.backs["xvda"].seen == []


@pytest.mark.parametrize(
    ("content", "faults", "line"),
    [
        (bytes(SIZE), {}, "disk xvdb, 4 MiB: no dump target"),
        (signed(superblock.COMPLETE), {}, "it holds a dump (complete)"),
        (signed(superblock.WRITING), {}, "it holds a dump (writing)"),
        (
            signed(size=2 * MIB),
            {},
            "it is too small: the dump has 2048 KiB at least, there is room for 1020 KiB",
        ),
        (signed(), {"read_only": True}, "the disk is read-only"),
        (signed()[:500] + bytes(SIZE - 500), {}, "the superblock is damaged (CRC)"),
        (bytes(1024), {}, "disk xvdb, 0 MiB: the disk has only 2 sectors"),
        (signed(), {"never_connects": True}, "is InitWait after 10 s"),
        (signed(), {"bad_id": 0}, "which is not in flight"),
        (signed(), {"sector_size": 513}, "sector-size is 513"),
        (signed(), {"never_answers": 0}, "no request completed for 30 s"),
    ],
)
def test_a_disk_that_will_not_do_is_told_of_and_the_next_one_taken(content, faults, line):
    disks = Disks(("xvdb", content, faults), SECOND_ONE)
    assert disks.choose() == "xvdc"
    (told,) = [said for said in disks.said if "xvdb" in said]
    assert told.startswith("disk xvdb")
    assert line in told


def test_a_name_that_is_not_there_is_told_and_the_others_count():
    disks = Disks(FIRST)
    assert disks.choose(["xvdd", "xvdb"]) == "xvdb"
    assert disks.said[0] == "disk xvdd: this guest has none (device/vbd/51760)"


def only(number):
    """A guest whose only disk has a number that Linux gives another name than xl; no backend."""
    disks = Disks()
    node = f"{disks.guest.home}/device/vbd/{number}"
    backend = f"/local/domain/0/backend/vbd/1/{number}"
    for key, value in (("backend", backend), ("backend-id", 0), ("state", 1)):
        disks.guest.store.write(f"{node}/{key}", value, "n1 r0")
    disks.guest.store.write(node, "", "n1 r0")
    return disks


@pytest.mark.parametrize(("name", "number"), [("xvdb", 832), ("hdb", 832), ("xvdc", 2080)])
def test_a_disk_is_found_by_the_name_that_linux_gives_it(name, number):
    only(number)
    stack = Stack()
    device = stack.run(lambda: find(stack.store, stack.loop, name))
    assert device.path == f"device/vbd/{number}"


def test_a_disk_that_has_two_names_is_looked_at_once():
    disks = only(832)
    with pytest.raises(TargetRefused, match="none of xvdb, hdb takes the dump"):
        disks.choose(["xvdb", "hdb"])
    assert len(disks.said) == 1
    assert disks.said[0].startswith("disk hdb: device/vbd/832, starting: ")


def test_no_target_at_all_is_refused_with_the_disks_that_were_looked_at():
    with pytest.raises(TargetRefused, match="none of xvda, xvdb takes the dump, nothing on them"):
        Disks(ROOT, ("xvdb", signed(superblock.PARTIAL), {})).choose()
    with pytest.raises(TargetRefused, match="none of xvdd takes"):
        Disks(FIRST).choose(["xvdd"])
    with pytest.raises(TargetRefused, match="this guest has no disk to dump to"):
        Disks().choose()


def test_dead_disks_cost_the_time_of_one():
    dead = [(f"xvd{letter}", signed(), {"never_connects": True}) for letter in "abcd"]
    disks = Disks(*dead, ("xvde", signed(), {}))
    began = hw.now()
    assert disks.choose() == "xvde"
    # They have 10 s from when another one was found.
    assert hw.now() - began < 11 * SECOND


def test_without_an_answer_of_xenstore_nothing_is_chosen():
    disks = Disks(FIRST)
    disks.guest.machine.clock.after(0, lambda: setattr(disks.guest.ring, "deaf", True))
    with pytest.raises(XenError, match="xenstore"):
        disks.choose()
