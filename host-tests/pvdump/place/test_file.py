"""A file on a real ext4 or xfs: made, armed, dumped to by its extents, collected; or refused."""

import fcntl
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import streamreader
from fixtures.guestdisks import MIB, START, Disk, program
from fixtures.placed import arm, refused, target
from fixtures.placedcrash import PlacedCrash

from pvdump import cli
from pvdump.arm import command
from pvdump.place import filesystem, freeze
from pvfw import superblock

KINDS = ["ext4", "xfs"]
SIZE = 48 * MIB


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prepare(path: Path, *words: str) -> int:
    return cli.main(["prepare", "--file", str(path), "--size=48M", *words])


def chattr(path: Path, sign: str) -> None:
    subprocess.run(["chattr", sign, str(path)], check=True)


@pytest.fixture
def file(made: Callable[..., Path], request: pytest.FixtureRequest) -> Path:
    """A prepared file."""
    path = made(getattr(request, "param", "ext4")) / "pvdump.img"
    assert prepare(path) == 0
    return path


@pytest.mark.parametrize("file", KINDS, indirect=True)
def test_a_file_is_made_with_all_its_blocks_written_and_stays_where_it_is(file: Path) -> None:
    block = superblock.decode(file.read_bytes())
    assert (block.state, block.size, block.version) == (superblock.READY, SIZE, superblock.VERSION)
    assert file.read_bytes()[-4096:][:512] == block.encode()
    with pytest.raises(PermissionError):
        file.unlink()
    with pytest.raises(PermissionError):
        os.truncate(file, 0)


@pytest.mark.parametrize("file", KINDS, indirect=True)
def test_what_is_armed_are_the_places_on_the_disk_that_the_file_has(
    file: Path, disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert arm(file) == 0
    assert "pvdump.disk=" not in capsys.readouterr().out
    wanted = target()
    assert (wanted.name, wanted.swap) == ("xvdb", False)
    raw, content = disk.image.read_bytes(), b""
    for first, sectors in wanted.extents:
        assert first * 512 >= START
        content += raw[first * 512 : (first + sectors) * 512]
    assert content == file.read_bytes()


@pytest.mark.parametrize("file", KINDS, indirect=True)
def test_each_arming_puts_a_nonce_of_its_own_on_the_disk_and_into_the_configuration(
    file: Path, disk: Disk
) -> None:
    nonces = set()
    for _ in range(2):
        assert arm(file) == 0
        wanted = target()
        first = wanted.extents.first() * 512
        for raw in (disk.image.read_bytes()[first : first + 512], file.read_bytes()[-4096:]):
            assert superblock.decode(raw).nonce == wanted.nonce
        assert superblock.decode(file.read_bytes()).nonce == wanted.nonce
        nonces.add(wanted.nonce)
    assert len(nonces) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_a_dump_by_its_extents_is_in_the_file_and_nothing_else_of_the_file_system_changes(
    made: Callable[..., Path], disk: Disk, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(kind)
    other = folder / "other"
    other.write_bytes(os.urandom(20 * MIB))
    path = folder / "pvdump.img"
    assert prepare(path) == 0
    before = other.read_bytes()
    late = folder / "late"
    late.write_bytes(b"written after the file was prepared")
    assert arm(path) == 0
    # The crash: what the kernel has not written is lost, and the journal is not empty.
    subprocess.run(["sync", "-f", str(folder)], check=True)
    crash = PlacedCrash(content=disk.image.read_bytes())
    crash.configure([target()])
    subprocess.run(["umount", str(folder)], check=True)
    crash.run()
    disk.image.write_bytes(crash.disk.data)
    # The next boot: the journal is replayed.
    subprocess.run(["mount", str(disk.part), str(folder)], check=True)
    assert other.read_bytes() == before
    assert late.read_bytes() == b"written after the file was prepared"
    raw = path.read_bytes()
    assert superblock.decode(raw).state == superblock.COMPLETE
    found = streamreader.read(raw)
    assert found.whole
    assert cli.main(["collect", "--format=elf", str(path), "vmcore"]) == 0
    assert superblock.decode(path.read_bytes()).collected
    with pytest.raises(PermissionError):
        os.truncate(path, 0)
    # The next crash.
    assert arm(path) == 1
    assert "prepare --again" in capsys.readouterr().err
    assert cli.main(["prepare", "--again", str(path)]) == 0
    assert arm(path) == 0
    subprocess.run(["umount", str(folder)], check=True)
    if kind == "ext4":
        program("/sbin/e2fsck", "-f", "-n", disk.part)
    else:
        program("/sbin/xfs_repair", "-n", disk.part)
    subprocess.run(["mount", str(disk.part), str(folder)], check=True)


# Refusals.


def test_a_file_that_exists_is_not_written(
    made: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = made("ext4") / "precious"
    path.write_bytes(b"\1" * MIB)
    assert prepare(path) == 1
    refused(capsys, "precious exists; --file makes a new file")
    assert path.read_bytes() == b"\1" * MIB


@pytest.mark.parametrize(
    ("words", "options", "message"),
    [
        ((), "data=journal", "the file system journals data (data=journal)"),
        (("-b", "1024"), "defaults", "is not whole pages of 4096 bytes: it has"),
    ],
)
def test_ext4_that_a_target_cannot_be_in_is_refused_and_left_without_it(
    made: Callable[..., Path],
    words: tuple[str, ...],
    options: str,
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = made("ext4", *words, options=options)
    assert prepare(folder / "pvdump.img") == 1
    refused(capsys, message)
    assert not (folder / "pvdump.img").exists()


def test_data_that_is_journaled_by_the_file_system_s_own_default_is_seen(
    made: Callable[..., Path], disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made("ext4")
    subprocess.run(["umount", str(folder)], check=True)
    program("/sbin/tune2fs", "-o", "journal_data", disk.part)
    subprocess.run(["mount", str(disk.part), str(folder)], check=True)
    assert prepare(folder / "pvdump.img") == 1
    refused(capsys, "journals data (data=journal)")


def test_files_of_a_folder_whose_data_is_journaled_are_refused(
    made: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = made("ext4")
    # Only with CAP_SYS_RESOURCE can the attribute be set.
    monkeypatch.setattr(filesystem, "attributes", lambda fd: 0x4000)
    assert prepare(folder / "pvdump.img") == 1
    refused(capsys, "chattr -j")


def test_a_file_system_without_extents_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(Path("/dev/shm/pvdump-none")) == 1
    refused(capsys, "is on a file system tmpfs: ext4 or xfs is needed")
    assert not Path("/dev/shm/pvdump-none").exists()


def test_a_file_for_which_there_is_no_room_is_not_left_behind(
    made: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = made("ext4") / "pvdump.img"
    assert cli.main(["prepare", "--file", str(path), "--size=120M"]) == 1
    refused(capsys, "No space left on device")
    assert not path.exists()


@pytest.mark.parametrize("words", [(), ("--size=48M", "--force"), ("--size=48M", "--swap")])
def test_a_file_needs_a_size_and_nothing_else(
    tmp_path: Path, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["prepare", "--file", str(tmp_path / "new"), *words]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_file_that_is_too_small_is_not_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["prepare", "--file", str(tmp_path / "new"), "--size=1M"]) == 1
    refused(capsys, "a target needs 2097152 bytes at least")
    assert not (tmp_path / "new").exists()


def test_a_file_that_cannot_be_a_target_is_not_left_behind(
    made: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = made("ext4") / "pvdump.img"

    def fail(fd: int, name: Path) -> None:
        raise filesystem.FileSystemError("no")

    monkeypatch.setattr(freeze, "settle", fail)
    assert prepare(path) == 1
    assert not path.exists()


def allocated(path: Path) -> None:
    with path.open("r+b") as stream:
        os.posix_fallocate(stream.fileno(), SIZE, 4 * MIB)


def punched(path: Path) -> None:
    subprocess.run(["fallocate", "-p", "-o", "8M", "-l", "1M", str(path)], check=True)


def shrunk(path: Path) -> None:
    os.truncate(path, SIZE - MIB)


def grown(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(bytes(MIB))


def rewritten(path: Path) -> None:
    path.write_bytes(bytes(SIZE))


def rewritten_in_the_middle(path: Path) -> None:
    os.truncate(path, SIZE // 2)
    with path.open("r+b") as stream:
        stream.seek(0, 2)
        stream.write(bytes(SIZE // 2))


def shared(path: Path) -> None:
    with path.open("rb") as one, path.with_name("clone").open("wb") as other:
        fcntl.ioctl(other.fileno(), 0x40049409, one.fileno())


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("ext4", allocated, "UNWRITTEN: what is written to it past the file system reads as zeros"),
        ("xfs", allocated, "UNWRITTEN"),
        ("ext4", punched, "has a hole at byte 8388608"),
        ("xfs", punched, "has a hole at byte 8388608"),
        ("ext4", shrunk, "has become smaller than its superblock says"),
        ("ext4", grown, "its superblock says 50331648: prepare it anew"),
        ("ext4", rewritten, "no pvdump superblock"),
        ("ext4", rewritten_in_the_middle, "no pvdump superblock"),
        ("xfs", shared, "SHARED: other files have it too"),
    ],
    indirect=["file"],
)
def test_a_file_that_was_changed_since_it_was_prepared_is_not_armed(
    file: Path, change: Callable[[Path], None], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    chattr(file, "-i")
    change(file)
    chattr(file, "+i")
    capsys.readouterr()
    assert arm(file) == 1
    refused(capsys, message)
    assert not Path("blob").exists()


def test_a_file_that_may_be_moved_is_not_armed(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chattr(file, "-i")
    capsys.readouterr()
    assert arm(file) == 1
    refused(capsys, "is not immutable, so it may be moved: chattr +i")


def test_a_place_that_was_found_wrongly_is_not_written(
    file: Path, disk: Disk, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (start,) = (tmp_path / "system").rglob("start")
    start.write_text(f"{START // 512 + 8}\n")
    (start.parent / "size").write_text(f"{START // 512 + 9 * MIB // 512}\n")
    size = start.parent / "size"
    size.write_text(f"{100 * MIB // 512}\n")
    before = disk.image.read_bytes()
    capsys.readouterr()
    assert arm(file) == 1
    refused(capsys, "byte 0 is not at sector")
    assert disk.image.read_bytes() == before


def test_a_configuration_that_cannot_be_written_leaves_the_nonce_as_it_was(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert arm(file) == 0
    nonce = target().nonce

    def full(*_: object) -> None:
        raise command.ArmError("no room")

    monkeypatch.setattr(command, "save", full)
    assert arm(file) == 1
    assert superblock.decode(file.read_bytes()).nonce == nonce


def test_a_partition_is_a_target_of_one_extent(
    disk: Disk, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["prepare", str(disk.part)]) == 0
    assert arm(disk.part) == 0
    wanted = target()
    assert list(wanted.extents) == [(START // 512, 100 * MIB // 512)]
    assert superblock.decode(disk.part.read_bytes()).nonce == wanted.nonce


# Freezing.


def test_the_file_system_is_thawed_when_the_one_that_froze_it_is_killed(
    made: Callable[..., Path],
) -> None:
    folder = made("ext4")
    reads, writes = os.pipe()
    pid = os.fork()
    if pid == 0:
        original = fcntl.ioctl

        def ioctl(fd: int, request: int, *rest: int) -> object:
            if request == freeze.FITHAW and os.getpid() == mine:
                os.kill(mine, 9)
            return original(fd, request, *rest)

        mine = os.getpid()
        freeze.fcntl.ioctl = ioctl  # type: ignore[assignment]
        fd = os.open(folder, os.O_RDONLY)
        freeze.settle(fd, folder)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 9
    # All that have the pipe have ended.
    os.close(writes)
    assert os.read(reads, 1) == b""
    os.close(reads)
    (folder / "file").write_bytes(b"thawed")
    subprocess.run(["sync", "-f", str(folder)], check=True)


def test_a_file_system_that_is_frozen_already_is_left_so(made: Callable[..., Path]) -> None:
    folder = made("ext4")
    fd = os.open(folder, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, freeze.FIFREEZE, 0)
        try:
            with pytest.raises(filesystem.FileSystemError, match="is frozen: fsfreeze -u it"):
                freeze.settle(fd, folder)
        finally:
            fcntl.ioctl(fd, freeze.FITHAW, 0)
    finally:
        os.close(fd)
