"""Frames that cannot be lent: how often Xen is asked, and how they split what is written."""

import pytest

import hw
from pvfw.holes import BLOCK, Holes, runs
from xenpv.hypercall import COPIES, Hypercalls


class Asked(Hypercalls):
    """Counts the hypercalls about frames."""

    def __init__(self):
        super().__init__()
        self.asked = 0

    def refused(self, gfns):
        self.asked += 1
        return super().refused(gfns)


@pytest.fixture
def holes(machine):
    return Holes(Asked())


def met(holes, machine):
    """Have a hole met, as by a write that failed."""
    machine.holes.add(1)
    assert holes.find(0, 2) == [1]
    holes.xen.asked = 0


def test_xen_is_not_asked_before_a_hole_was_met(holes):
    assert list(holes.runs(0x100, 3 * BLOCK)) == [[0x100, 3 * BLOCK, True]]
    assert holes.xen.asked == 0


def test_blocks_of_memory_are_sampled_with_one_hypercall_each(holes, machine):
    met(holes, machine)
    list(holes.runs(BLOCK, BLOCK))
    holes.xen.asked = 0
    assert list(holes.runs(2 * BLOCK, 3 * BLOCK)) == [
        [2 * BLOCK, BLOCK, True],
        [3 * BLOCK, BLOCK, True],
        [4 * BLOCK, BLOCK, True],
    ]
    assert holes.xen.asked == 3


def test_a_block_of_holes_is_one_run_and_asked_about_in_few_hypercalls(holes, machine):
    met(holes, machine)
    machine.holes |= set(range(2 * BLOCK, 3 * BLOCK))
    assert list(holes.runs(2 * BLOCK, BLOCK)) == [[2 * BLOCK, BLOCK, False]]
    assert holes.xen.asked == BLOCK // COPIES
    assert holes.count == 1 + BLOCK


def test_the_block_after_holes_is_asked_about_frame_by_frame(holes, machine):
    met(holes, machine)
    machine.holes |= {2 * BLOCK, 3 * BLOCK + 5}
    found = [run for run in holes.runs(2 * BLOCK, 2 * BLOCK) if not run[2]]
    assert found == [[2 * BLOCK, 1, False], [3 * BLOCK + 5, 1, False]]


def test_a_frame_of_another_domain_is_found_too(holes, machine):
    machine.foreign.add(0x105)
    assert holes.find(0x100, 16) == [0x105]


def test_frames_of_ours_are_found_lendable_up_to_the_end_of_memory(holes, machine):
    end = len(machine.ram) // 4096
    assert holes.find(end - 2, 4) == [end, end + 1]


def test_without_an_answer_of_xen_no_frame_is_a_hole(holes, machine, monkeypatch):
    machine.holes.add(0x100)
    monkeypatch.setattr(hw, "hypercall", lambda nr, *args: -38)
    assert holes.find(0x100, 16) == []


@pytest.mark.parametrize(
    ("found", "split"),
    [
        ([], [[10, 4, True]]),
        ([10], [[10, 1, False], [11, 3, True]]),
        ([13], [[10, 3, True], [13, 1, False]]),
        ([11, 12], [[10, 1, True], [11, 2, False], [13, 1, True]]),
        ([10, 12], [[10, 1, False], [11, 1, True], [12, 1, False], [13, 1, True]]),
        ([10, 11, 12, 13], [[10, 4, False]]),
    ],
)
def test_runs_split_at_holes_in_order(found, split):
    assert runs(10, 4, found) == split
