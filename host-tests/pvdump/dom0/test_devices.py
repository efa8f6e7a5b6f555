"""Disks of a guest that libxl soft resets: closed while it waits for them, and never else."""

import threading

import pytest
from fixtures.libxldevices import Devices
from fixtures.storeserver import serving

from pvdump.dom0 import devices
from pvdump.dom0.devices import Disk
from pvdump.xenstore.store import Store


@pytest.fixture
def stores(tmp_path):
    with serving(tmp_path) as path, Store(path) as ours, Store(path) as libxls:
        yield ours, Devices(libxls)


@pytest.fixture
def disk(stores):
    return Disk(*stores[1].make("vbd", 51712))


def always():
    return True


def test_disks_of_linux_are_found(stores):
    store, libxl = stores
    made = [libxl.make("vbd", 51712), libxl.make("vbd", 51728, home=3)]
    libxl.make("vbd", 51744, "qdisk")
    libxl.make("vif", 0, "vif")
    assert devices.find(store, 7) == [Disk(*paths) for paths in made]


def test_a_guest_without_devices_has_none(stores):
    assert devices.find(stores[0], 7) == []


def test_nodes_of_another_domain_s_disk_are_not_taken_for_the_guest_s(stores, disk):
    store, libxl = stores
    libxl.store.write("/libxl/7/device/vbd/51712/backend", "/local/domain/0/backend/vbd/8/51712")
    assert devices.find(store, 7) == []


def test_a_disk_whose_front_end_libxl_has_removed_is_closed_at_its_backend(stores, disk):
    store, libxl = stores
    libxl.take_away("vbd", 51712)
    assert devices.close(store, disk, always)
    assert (libxl.state(disk.front), libxl.state(disk.back)) == ("gone", "6")


def test_a_disk_whose_front_end_is_there_is_closed_by_its_front_end(stores, disk):
    store, libxl = stores
    libxl.take_away("vbd", 51712, forced=False)
    assert devices.close(store, disk, always)
    assert (libxl.state(disk.front), libxl.state(disk.back)) == ("6", "5")


@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize("moment", ["connected", "offline", "closing", "made again", "gone"])
def test_at_another_moment_nothing_is_written(stores, disk, moment, forced):
    store, libxl = stores
    if moment == "offline":
        libxl.store.write(f"{disk.back}/online", "0")
    elif moment == "closing":
        libxl.store.write(f"{disk.back}/state", "5")
    elif moment in ("made again", "gone"):
        libxl.take_away("vbd", 51712, forced)
        libxl.remove("vbd", 51712)
        if moment == "made again":
            libxl.make("vbd", 51712, state="1")
    before = [libxl.state(path) for path in disk]
    assert not devices.close(store, disk, always)
    assert [libxl.state(path) for path in disk] == before


@pytest.mark.parametrize("forced", [True, False])
def test_a_disk_that_is_detached_from_a_guest_that_runs_is_left_to_it(stores, disk, forced):
    store, libxl = stores
    libxl.take_away("vbd", 51712, forced)
    before = [libxl.state(path) for path in disk]
    assert not devices.close(store, disk, lambda: False)
    assert [libxl.state(path) for path in disk] == before


@pytest.mark.parametrize("forced", [True, False])
@pytest.mark.parametrize("state", ["1", "3", "4"])
def test_a_write_that_is_late_does_not_end_the_crash_kernel_s_connection(
    stores, disk, state, forced
):
    """libxl resets the domain, and its crash kernel connects, between the look and the write."""
    store, libxl = stores
    libxl.take_away("vbd", 51712, forced)
    looks = []

    def made_again():
        libxl.remove("vbd", 51712)
        libxl.make("vbd", 51712, state=state)

    def late():
        looks.append(1)
        # In a thread of its own, since this one is the store's.
        thread = threading.Thread(target=made_again)
        thread.start()
        thread.join()
        return True

    assert not devices.close(store, disk, late)
    assert looks == [1]
    assert [libxl.state(path) for path in disk] == [state, state]
