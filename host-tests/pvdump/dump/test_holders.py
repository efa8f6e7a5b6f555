"""The users of a disk are found by its identity, not by the name in use."""

import contextlib
import genericpath
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fixtures.targets import SIZE

from pvdump.dump import disk as disks
from pvdump.dump import holders
from pvdump.dump.disk import DiskError
from pvdump.dump.prepare import prepare
from pvdump.xenstore import stream
from pvdump.xenstore.store import Store
from pvdump.xenstored.server import Xenstored
from pvdump.xenstored.unix import UnixTransport


@pytest.fixture
def image(tmp_path: Path) -> Path:
    path = tmp_path / "image"
    path.write_bytes(b"\1" * SIZE)
    return path


@pytest.fixture(params=["its name", "a hard link", "a symbolic link", "a link to its folder"])
def name(image: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Another name of the image."""
    other = tmp_path / "other"
    if request.param == "its name":
        return image
    if request.param == "a hard link":
        os.link(image, other)
        return other
    if request.param == "a symbolic link":
        other.symlink_to(image)
        return other
    other.symlink_to(tmp_path)
    return other / "image"


def refused(path: Path, match: str) -> None:
    """Not even by force."""
    before = path.read_bytes()
    for force in (False, True):
        with pytest.raises(DiskError, match=match):
            prepare(path, force=force)
    assert path.read_bytes() == before


def test_file_behind_a_loop_device_is_in_use(
    image: Path, name: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = tmp_path / "sys/loop3/loop/backing_file"
    backing.parent.mkdir(parents=True)
    backing.write_text(f"{image}\n")
    monkeypatch.setattr(holders, "SYS_BLOCK", tmp_path / "sys")
    monkeypatch.setattr(holders, "DEV", tmp_path)
    refused(name, "/dev/loop3")


def test_loop_device_tells_its_file_where_the_name_means_nothing(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backing = tmp_path / "sys/loop3/loop/backing_file"
    backing.parent.mkdir(parents=True)
    backing.write_text("/gone (deleted)\n")
    monkeypatch.setattr(holders, "SYS_BLOCK", tmp_path / "sys")
    monkeypatch.setattr(holders, "DEV", tmp_path)
    (tmp_path / "loop3").touch()
    monkeypatch.setattr(holders.fcntl, "ioctl", status64(image))
    refused(image, "/dev/loop3")


def test_loop_device_that_is_detached_meanwhile_uses_nothing(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sys/loop3/loop/backing_file").mkdir(parents=True)  # reading it fails
    monkeypatch.setattr(holders, "SYS_BLOCK", tmp_path / "sys")
    with image.open("rb") as stream:
        assert holders.kernel(stream.fileno()) == ""


def status64(image: Path) -> Callable[[int, int, bytes], bytes]:
    """Return the ioctl of loop devices that are all on an image."""
    status = image.stat()
    major, minor = os.major(status.st_dev), os.minor(status.st_dev)
    encoded = minor & 0xFF | major << 8 | (minor & ~0xFF) << 12
    head = encoded.to_bytes(8, "little") + status.st_ino.to_bytes(8, "little")
    return lambda fd, request, buffer: head.ljust(len(buffer), b"\0")


def test_swap_file_is_in_use(
    image: Path, name: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    swaps = tmp_path / "swaps"
    swaps.write_text(f"Filename Type Size Used Priority\n{image} file 8188 0 -2\n")
    monkeypatch.setattr(holders, "SWAPS", swaps)
    refused(name, "swaps")


def test_swap_file_with_a_blank_in_its_name_is_in_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "swap file"
    image.write_bytes(b"\1" * SIZE)
    swaps = tmp_path / "swaps"
    swaps.write_text(f"Filename\n{tmp_path}/swap\\040file file 8188 0 -2\n")
    monkeypatch.setattr(holders, "SWAPS", swaps)
    refused(image, "swaps")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store of domain 0, where its tools look for it."""
    path = tmp_path / "store"
    monkeypatch.setenv("XENSTORED_PATH", str(path))
    with contextlib.ExitStack() as stack:
        unix = stack.enter_context(UnixTransport(Xenstored(), path))
        thread = threading.Thread(target=unix.run)
        thread.start()
        stack.callback(thread.join)
        stack.callback(unix.stop)
        yield stack.enter_context(Store(path))


@pytest.mark.parametrize(
    ("kind", "prefix"), [("vbd", ""), ("qdisk", "aio:"), ("qdisk", "raw:"), ("pvdump_vbd", "")]
)
def test_file_that_a_guest_has_is_in_use(store: Store, image: Path, kind: str, prefix: str) -> None:
    store.write(f"backend/{kind}/7/51712/params", prefix + str(image))
    store.write(f"backend/{kind}/7/51712/dev", "xvda")
    os.link(image, image.with_name("other"))
    refused(image.with_name("other"), "domain 7 has it as xvda")


def test_file_of_no_guest_is_in_no_use(store: Store, image: Path) -> None:
    store.write("backend/vbd/7/51712/params", str(image.with_name("another")))
    store.write("backend/vbd/7/51712/physical-device", "fd:3")
    prepare(image, force=True)


@pytest.mark.parametrize("on", [True, False])
def test_loop_device_on_a_file_that_a_guest_has_is_in_use(
    store: Store, image: Path, monkeypatch: pytest.MonkeyPatch, on: bool
) -> None:
    store.write("backend/pvdump_vbd/7/51712/params", str(image))
    store.write("backend/pvdump_vbd/7/51712/dev", "xvda")
    other = image.with_name("another")
    other.touch()
    loop = os.stat_result((stat.S_IFBLK, *range(9)), {"st_rdev": os.makedev(7, 3)})
    monkeypatch.setattr(os, "fstat", lambda fd: loop)
    monkeypatch.setattr(holders, "_locked", lambda *_: False)
    monkeypatch.setattr(holders.fcntl, "ioctl", status64(image if on else other))
    assert holders.guest(0) == ("domain 7 has it as xvda" if on else "")


DISK, PART, OTHER = os.makedev(8, 16), os.makedev(8, 17), os.makedev(8, 32)


@pytest.fixture
def partitions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Disks 8:16, with partition 8:17, and 8:32, in sysfs."""
    block, dev = tmp_path / "sys/block", tmp_path / "sys/dev/block"
    dev.mkdir(parents=True)
    for number, folder in (("8:16", "sdb"), ("8:17", "sdb/sdb1"), ("8:32", "sdc")):
        (block / folder).mkdir(parents=True)
        (block / folder / "dev").write_text(f"{number}\n")
        (dev / number).symlink_to(block / folder)
    (block / "sdb/sdb1/partition").write_text("1\n")
    monkeypatch.setattr(holders, "SYS_DEV_BLOCK", dev)


@pytest.mark.usefixtures("partitions")
@pytest.mark.parametrize(
    ("device", "there", "used"),
    [
        (DISK, b"8:10", True),
        (DISK, b"8:11", True),
        (PART, b"8:10", True),
        (PART, b"8:11", True),
        (OTHER, b"8:10", False),
        (DISK, b"8:20", False),
    ],
)
def test_disk_that_a_guest_has_whole_or_in_part_is_in_use(
    device: int, there: bytes, used: bool
) -> None:
    status = os.stat_result((stat.S_IFBLK, *range(9)), {"st_rdev": device})
    assert holders._is_behind(status, there) == used


@pytest.mark.parametrize(("locks", "attached"), [(True, True), (True, False), (False, True)])
def test_backend_is_who_has_locked_a_guest_s_disk(
    store: Store, image: Path, monkeypatch: pytest.MonkeyPatch, locks: bool, attached: bool
) -> None:
    if attached:
        store.write("backend/pvdump_vbd/7/51712/params", str(image))
    monkeypatch.setattr(holders, "_locked", lambda fd: locks)
    with image.open("rb") as opened:
        assert holders.backend(opened.fileno()) == (locks and attached)


@pytest.mark.parametrize(
    "value",
    [
        *(b"", b"fd", b"fd:3:4", b"aio:", b"/", b"nbd://host", b"a\0/b", b"\xff\xfe", b"/x" * 999),
        *(b"ffffffff:ffffffff", b"1000:0", b"0:100000"),
    ],
)
def test_value_that_names_nothing_is_nothing(image: Path, value: bytes) -> None:
    disk = os.stat_result((stat.S_IFBLK, *range(9)), {"st_rdev": 0})
    assert not holders._is_behind(image.stat(), value)
    assert not holders._is_behind(disk, value)


def test_store_that_this_user_may_not_look_for_is_no_store(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stat_ = os.stat

    def refuse(path: Path, **options: bool) -> os.stat_result:
        if Path(path) in (stream.SOCKET, Path("/secret/socket")):
            raise PermissionError(13, "Permission denied", str(path))
        return stat_(path, **options)

    monkeypatch.delenv("XENSTORED_PATH", raising=False)
    monkeypatch.setattr(os, "stat", refuse)
    monkeypatch.setattr(os.path, "exists", genericpath.exists)  # a built-in one does not use stat()
    assert stream.default_path() == stream.DEVICE
    monkeypatch.setenv("XENSTORED_PATH", "/secret/socket")
    assert list(holders._attached()) == []


def test_file_that_qemu_has_locked_is_in_use(image: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XENSTORED_PATH", str(image.with_name("no store")))
    # As QEMU does: open file description locks, shared, beyond the file's own bytes.
    program = f"""
import fcntl, struct, sys
file = open({str(image)!r}, "rb")
fcntl.fcntl(file, 37, struct.pack("hhqqi4x", fcntl.F_RDLCK, 0, 100, 1, 0))
print("locked", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"locked\n"
        refused(image, "another process has locked it")
        assert process.stdin is not None
        process.stdin.close()


def test_disk_in_use_is_read_all_the_same(image: Path) -> None:
    with disks.reading(image) as disk:
        assert disk.size == SIZE
