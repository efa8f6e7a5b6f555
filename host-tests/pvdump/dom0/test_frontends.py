"""Front ends of a guest that libxl soft resets: closed while it waits for them, and never else."""

import threading

import pytest
from fixtures.libxldevices import Devices
from fixtures.storeserver import serving

from pvdump.dom0 import frontends
from pvdump.dom0.frontends import FrontEnd
from pvdump.xenstore.store import Store


@pytest.fixture
def stores(tmp_path):
    with serving(tmp_path) as path, Store(path) as ours, Store(path) as libxls:
        yield ours, Devices(libxls)


def always():
    return True


def test_disks_and_network_interfaces_of_linux_are_found(stores):
    store, devices = stores
    made = [devices.make("vbd", 51712), devices.make("vif", 0, "vif", home=3)]
    devices.make("vbd", 51728, "qdisk")
    devices.make("vkbd", 0, "vkbd")
    assert frontends.find(store, 7) == [FrontEnd(*paths) for paths in made]


def test_a_guest_without_devices_has_none(stores):
    assert frontends.find(stores[0], 7) == []


def test_nodes_of_another_domain_s_device_are_not_taken_for_the_guest_s(stores):
    store, devices = stores
    devices.make("vbd", 51712)
    devices.store.write("/libxl/7/device/vbd/51712/backend", "/local/domain/0/backend/vbd/8/51712")
    assert frontends.find(store, 7) == []


def test_a_front_end_is_closed_while_libxl_waits_for_it(stores):
    store, devices = stores
    front = FrontEnd(*devices.make("vbd", 51712))
    devices.take_away(front.backend)
    assert frontends.close(store, front, always)
    assert devices.state(front.path) == "6"


@pytest.mark.parametrize("moment", ["connected", "only offline", "only closing", "made again"])
def test_at_another_moment_it_is_left_alone(stores, moment):
    store, devices = stores
    front = FrontEnd(*devices.make("vbd", 51712))
    if moment == "only offline":
        devices.store.write(f"{front.backend}/online", "0")
    elif moment == "only closing":
        devices.store.write(f"{front.backend}/state", "5")
    elif moment == "made again":
        devices.take_away(front.backend)
        devices.remove("vbd", 51712)
        devices.make("vbd", 51712, state="1")
    before = devices.state(front.path)
    assert not frontends.close(store, front, always)
    assert devices.state(front.path) == before


def test_a_domain_that_is_not_down_keeps_its_front_ends(stores):
    # A disk that is being detached from a guest that runs.
    store, devices = stores
    front = FrontEnd(*devices.make("vbd", 51712))
    devices.take_away(front.backend)
    assert not frontends.close(store, front, lambda: False)
    assert devices.state(front.path) == "4"


def test_one_that_is_closed_is_not_closed_again(stores):
    store, devices = stores
    front = FrontEnd(*devices.make("vbd", 51712))
    devices.take_away(front.backend)
    devices.store.write(f"{front.path}/state", "6")
    assert not frontends.close(store, front, always)


@pytest.mark.parametrize("state", ["1", "3", "4"])
def test_a_write_that_is_late_does_not_end_the_crash_kernel_s_connection(stores, state):
    """libxl resets the domain, and its crash kernel connects, between the look and the write."""
    store, devices = stores
    front = FrontEnd(*devices.make("vbd", 51712))
    devices.take_away(front.backend)
    looks = []

    def made_again():
        devices.remove("vbd", 51712)
        devices.make("vbd", 51712, state=state)

    def late():
        looks.append(1)
        # In a thread of its own, since this one is the store's.
        thread = threading.Thread(target=made_again)
        thread.start()
        thread.join()
        return True

    assert not frontends.close(store, front, late)
    assert looks == [1]
    assert devices.state(front.path) == state
