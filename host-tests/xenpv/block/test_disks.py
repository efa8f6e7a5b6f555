"""All disks of a guest beside each other: the failure of one costs the others nothing."""

import pytest
from fixtures.stack import Stack

import hw
from pvxen.crashedkernel import CrashedKernel
from pvxen.faults import Faults
from pvxen.guest import EmbeddedGuest
from pvxen.sink import Memory
from xenpv import abi
from xenpv.block import disks as blkdisks
from xenpv.block.disks import OTHERS_TIMEOUT
from xenpv.block.negotiate import Limits
from xenpv.block.supervise import CONNECT_TIMEOUT
from xenpv.errors import BackendError, Timeout, XenError
from xenpv.loop import SECOND

SIZE = 1 << 20
XVDA = 51712
WELL = {"latency": SECOND // 1000}


class Disks:
    """A guest with disks xvda, xvdb, ...

    faults: of each one's backend.
    """

    def __init__(self, *faults, **options):
        self.guest = EmbeddedGuest(**options)
        self.sinks = [Memory(SIZE) for _ in faults]
        self.backs = []
        for i, (sink, of_this) in enumerate(zip(self.sinks, faults, strict=True)):
            sink.data[:4096] = bytes([i + 1]) * 4096
            self.backs.append(self.guest.disk("xvd" + chr(ord("a") + i), sink, **of_this))

    def recover_after(self, seconds, i):
        """Make the backend of a disk one without faults after a time."""

        def recover():
            self.backs[i].faults = Faults(**WELL)
            self.backs[i]._look()

        self.guest.machine.clock.after(seconds * SECOND, recover)

    def run(self, work, numbers=None):
        """Do work(number, disk) with each. Returns the results and how long it took (ns)."""
        stack = Stack()
        self.store, self.grants = stack.store, stack.grants

        async def main():
            found = await blkdisks.numbers(self.store) if numbers is None else numbers
            began = hw.now()
            limits = Limits(1, 32, 11)
            results = await blkdisks.each(self.store, self.grants, found, work, limits=limits)
            return results, hw.now() - began

        return stack.run(main)


async def read_first(number, disk):
    """Read the first byte of the disk and close it. Returns the byte."""
    page = hw.alloc_pages(1)
    await disk.read(0, page // 4096, 8)
    await disk.drain()
    await disk.close()
    return hw.mem(page, 1)[0]


@pytest.mark.parametrize("seed", range(4))
def test_each_disk_is_found_and_gives_its_own_data(seed):
    disks = Disks(*[WELL] * 12, seed=seed)
    assert disks.run(read_first)[0] == list(range(1, 13))
    assert disks.grants.set_aside == 0
    assert disks.guest.machine.gnttab.mappings == []


# A backend that is dead, one that lies, one that refuses writes of its state, one that is silent.
FAULTY = {
    "dead": ({"never_connects": True}, Timeout, "connecting: .* is InitWait after 10 s"),
    "hostile": ({"bad_id": 0}, BackendError, "response to id .* which is not in flight"),
    "refuses": ({"sector_size": 513}, BackendError, "sector-size is 513"),
    "silent": ({"never_answers": 0}, Timeout, "no request completed for 30 s"),
    "fails": ({"error_after": 0, "bad_status": 0}, BackendError, "response with status -77"),
}


@pytest.mark.parametrize("seed", range(3))
def test_each_fault_is_reported_for_its_disk_and_the_others_are_read(seed):
    disks = Disks(WELL, *[faults for faults, _, _ in FAULTY.values()], WELL, seed=seed)
    results, _ = disks.run(read_first)
    assert results[0] == 1
    assert results[-1] == len(FAULTY) + 2
    for i, (_, kind, message) in enumerate(FAULTY.values(), 1):
        with pytest.raises(kind, match=message) as caught:
            raise results[i]
        assert f"device/vbd/{XVDA + 16 * i}" in str(caught.value)
        assert type(caught.value) is kind


@pytest.mark.parametrize("stuck", [1, 3, 7])
def test_stuck_backends_cost_the_time_of_one_however_many_they_are(stuck):
    disks = Disks(WELL, *[{"never_connects": True}] * stuck, WELL)
    results, took = disks.run(read_first)
    assert [results[0], results[-1]] == [1, stuck + 2]
    assert all(isinstance(result, Timeout) for result in results[1:-1])
    assert OTHERS_TIMEOUT <= took < OTHERS_TIMEOUT + SECOND


@pytest.mark.parametrize("seconds", [6, 290])
def test_a_slow_disk_is_waited_for_while_no_other_one_will_do(seconds):
    async def work(number, disk):
        return await read_first(number, disk) == 2

    disks = Disks(WELL, {"never_connects": True})
    disks.recover_after(seconds, 1)
    assert disks.run(work)[0] == [False, True]


def test_a_slow_disk_has_ten_seconds_once_another_one_will_do():
    disks = Disks({"never_connects": True}, {"never_connects": True}, WELL)
    disks.recover_after(8, 0)
    disks.recover_after(20, 1)
    results, took = disks.run(read_first)
    assert [results[0], results[2]] == [1, 3]
    assert isinstance(results[1], Timeout)
    assert took < OTHERS_TIMEOUT + SECOND


def test_dead_disks_alone_cost_the_time_of_one():
    disks = Disks({"never_connects": True}, {"never_connects": True})
    results, took = disks.run(read_first)
    assert all(isinstance(result, Timeout) for result in results)
    assert CONNECT_TIMEOUT <= took < CONNECT_TIMEOUT + SECOND


def test_disks_in_line_wait_ten_seconds_for_dead_ones():
    disks = Disks(*[{"never_connects": True}] * 8, WELL)
    results, took = disks.run(read_first)
    assert results[8] == 9
    assert took < 2 * OTHERS_TIMEOUT + SECOND


def test_a_disk_that_works_is_not_kept_waiting_by_one_that_does_not():
    done = {}

    async def work(number, disk):
        result = await read_first(number, disk)
        done[number] = hw.now() - began
        return result

    disks = Disks({"never_connects": True}, WELL, {"stuck_closing": True})
    CrashedKernel(disks.guest).connect(disks.backs[2])
    began = hw.now()
    disks.run(work)
    assert list(done) == [XVDA + 16]
    assert done[XVDA + 16] < SECOND // 2


def test_a_disk_without_a_backend_is_a_failure_of_its_own():
    disks = Disks(WELL, WELL, WELL)
    store, home = disks.guest.store, disks.guest.home
    store.rm(f"{home}/device/vbd/{XVDA}/backend")
    store.write(f"{home}/device/vbd/{XVDA + 16}/backend", "/local/domain/0/backend/none")
    results, took = disks.run(read_first)
    assert results[2] == 3
    assert "device/vbd/51712/backend: ENOENT" in str(results[0])
    assert "is Unknown after 10 s" in str(results[1])
    assert took < OTHERS_TIMEOUT + SECOND


def test_a_disk_without_memory_fails_alone():
    begin = 8 << 20
    disks = Disks(*[WELL] * 8, region=(begin, begin + 32 * 4096))
    results, _ = disks.run(read_first)
    failed = [result for result in results if isinstance(result, MemoryError)]
    assert 0 < len(failed) < 8
    assert [i + 1 for i, result in enumerate(results) if result not in failed] == [
        result for result in results if result not in failed
    ]


def test_work_that_fails_leaves_its_disk_closed_and_the_others_alone():
    async def work(number, disk):
        if number == XVDA:
            raise XenError("this one is not liked")
        return await read_first(number, disk)

    disks = Disks(WELL, WELL)
    results, _ = disks.run(work)
    assert str(results[0]) == "this one is not liked"
    assert results[1] == 2
    assert disks.backs[0].states[-2:] == [abi.XenbusStateClosed, abi.XenbusStateInitWait]


def test_an_error_that_ends_all_of_them_leaves_each_disk_closed():
    async def work(number, disk):
        if number == XVDA:
            await disk.loop.sleep(SECOND)
            raise KeyError("a mistake")
        await disk.loop.sleep(100 * SECOND)

    disks = Disks(WELL, WELL, WELL)
    with pytest.raises(KeyError):
        disks.run(work)
    disks.guest.settle()
    for back in disks.backs:
        assert back.states[-2:] == [abi.XenbusStateClosed, abi.XenbusStateInitWait]


def test_a_disk_that_the_crashed_kernel_left_connected_is_taken_over_beside_the_others():
    disks = Disks(*[WELL] * 4, gnttab_max_frames=8)
    crashed = CrashedKernel(disks.guest)
    for back in disks.backs[::2]:
        crashed.connect(back)
    assert disks.run(read_first)[0] == [1, 2, 3, 4]


def test_cd_drives_are_left_out_and_names_that_are_no_number():
    disks = Disks(WELL, WELL)
    store, home = disks.guest.store, disks.guest.home
    store.write(f"{home}/device/vbd/{XVDA}/device-type", "cdrom")
    store.write(f"{home}/device/vbd/other/state", "1")
    assert disks.run(read_first)[0] == [2]


def test_a_guest_without_disks_has_none():
    assert Disks().run(read_first)[0] == []
