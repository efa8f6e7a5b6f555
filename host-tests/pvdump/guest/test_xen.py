"""What a guest can tell of its Xen: its nodes in xenstore, its toolstack, its disks."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.guestroot import FEATURES, GuestRoot

from pvdump.guest import xen
from pvdump.xenstore.store import Store
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport


@pytest.fixture
def socket(tmp_path: Path) -> Iterator[Path]:
    """A xenstore that has a disk of a guest, with paths as its own device gives them."""
    with UnixTransport(Xenstored(), tmp_path / "socket") as unix:
        server = threading.Thread(target=unix.run)
        server.start()
        yield Path(unix.path)
        unix.stop()
        server.join()


HOME = "/local/domain/0/"  # of who asks on the socket


def test_nodes_are_read_with_the_features_of_each_backend(socket: Path) -> None:
    back = "/local/domain/0/backend/qdisk/5/51712"
    with Store(socket) as store:
        store.write(f"{HOME}unique-domain-id", "d5c91743")
        store.write(f"{HOME}device/vbd/51712/backend", back)
        store.write(f"{HOME}device/vbd/51728/backend", "")
        for name, value in FEATURES.items():
            store.write(f"{back}/{name}", value)
    found = xen.read_store(socket)
    assert found["unique-domain-id"] == "d5c91743"
    assert found["device/vbd/51712/backend"] == back
    for name, value in FEATURES.items():
        assert found[f"device/vbd/51712/{name}"] == value


def test_without_a_xenstore_nothing_is_known(tmp_path: Path) -> None:
    assert xen.read_store(tmp_path / "none") == {}


def test_disks_have_xen_s_names_and_the_kind_of_their_backend(unarmed: GuestRoot) -> None:
    unarmed.store["device/vbd/51712/backend"] = "/local/domain/0/backend/vbd3/5/51712"
    unarmed.disk(51744, "other")
    first, second = xen.read_disks(unarmed.path, unarmed.store)
    assert (first.name, first.backend, second.name) == ("xvda", "vbd3", "xvdb")
    assert second.features["feature-flush-cache"] == "1"


def test_disk_whose_backend_is_not_known_is_a_disk(unarmed: GuestRoot) -> None:
    assert [disk.backend for disk in xen.read_disks(unarmed.path, {})] == ["", ""]


@pytest.mark.parametrize(
    ("name", "content", "toolstack"),
    [
        ("x", "", xen.LIBXL),
        ("usr/share/qubes/marker-vm", "", xen.QUBES),
        ("sys/hypervisor/uuid", "ec2f1a2b-0000", xen.LIBXL),
    ],
)
def test_toolstack_is_told_by_what_it_leaves(
    unarmed: GuestRoot, name: str, content: str, toolstack: str
) -> None:
    unarmed.write(name, content)
    found = xen.read(unarmed.path, unarmed.store)
    assert found is not None
    assert found.toolstack == toolstack


def test_toolstack_is_unknown_where_xenstore_is_not_read(unarmed: GuestRoot) -> None:
    found = xen.read(unarmed.path, {})
    assert found is not None
    assert found.toolstack == xen.UNKNOWN


def test_hvm_is_told_by_its_smbios_where_the_kernel_does_not_tell(unarmed: GuestRoot) -> None:
    unarmed.remove("sys/hypervisor/guest_type")
    found = xen.read(unarmed.path, {})
    assert found is not None
    assert found.kind == "HVM"


@pytest.mark.parametrize(
    ("extra", "version"),
    [(".7", (4, 17, 7)), (".5-9.40", (4, 17, 5)), ("-unstable", (4, 17, 0)), ("", (4, 17, 0))],
)
def test_patch_level_is_read_from_what_follows_the_version(
    unarmed: GuestRoot, extra: str, version: tuple[int, int, int]
) -> None:
    unarmed.write("sys/hypervisor/version/extra", extra)
    found = xen.read(unarmed.path, {})
    assert found is not None
    assert found.version == version
