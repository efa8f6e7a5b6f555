"""The target that setup chooses, on real file systems, partitions and swap."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.guestdisks import MIB, Disk, program

from pvdump.arm import targets
from pvdump.dump import prepare
from pvdump.guest import changes, choice, programs
from pvdump.guest.choice import Choice, Wish
from pvdump.place import device, swap
from pvfw import superblock
from pvfw.errors import DumpError


@pytest.fixture(autouse=True)
def devices(disk: Disk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(targets, "DEVICES", device.DEVICES)


@pytest.fixture
def swaps(disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The partition as swap space, which the kernel is said to use."""
    subprocess.run(["mkswap", str(disk.part)], check=True, capture_output=True)
    path = tmp_path / "swaps"
    path.write_text(f"Filename Type Size Used Priority\n{disk.part} partition 102396 0 -2\n")
    monkeypatch.setattr(swap, "SWAPS", path)
    monkeypatch.setattr(swap, "CMDLINE", tmp_path / "none")
    monkeypatch.setattr(swap, "POWER", tmp_path / "none")
    return path


def wish(folder: Path, mib: int = 10, level: int = 31) -> Wish:
    return Wish(mib * MIB, level, folder)


def do(chosen: Choice, tmp_path: Path) -> Path:
    """Make a target as setup does. Returns the root of the record."""
    root = tmp_path / "root"
    changes.apply(chosen.steps, root, lambda line: None)
    return root


def take_back(root: Path) -> list[str]:
    """Undo it as remove does. Returns what was said."""
    said: list[str] = []
    assert changes.revert(root, said.append)
    return said


def test_file_has_one_and_a_half_times_the_estimate(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    folder = made("ext4") / "crash"
    chosen, reasons = choice.best(wish(folder))
    assert chosen is not None
    assert (chosen.name, reasons) == (f"file:{folder}/pvdump.img", [])
    root = do(chosen, tmp_path)
    block = superblock.decode((folder / "pvdump.img").read_bytes())
    assert 15 * MIB <= block.room() < 16 * MIB
    assert choice.named("file", wish(folder)).steps == []
    assert take_back(root) == []
    assert not folder.exists()


def test_file_is_refused_where_it_and_a_dump_do_not_fit(made: Callable[..., Path]) -> None:
    folder = made("ext4")
    with pytest.raises(DumpError, match="MiB free; a target of 62 MiB and a collected dump of 40"):
        choice.named("file", wish(folder, 40))


def test_file_with_a_dump_that_was_not_collected_stays(
    made: Callable[..., Path], tmp_path: Path
) -> None:
    folder = made("ext4")
    root = do(choice.named("file", wish(folder)), tmp_path)
    path = folder / "pvdump.img"
    subprocess.run(["chattr", "-i", str(path)], check=True)
    block = superblock.decode(path.read_bytes())
    block.state = superblock.COMPLETE
    with path.open("r+b") as stream:
        stream.write(block.encode())
    (said,) = take_back(root)
    assert "holds a dump that was not collected, and stays" in said
    assert path.exists()


def test_swap_is_taken_where_no_file_can_be(
    swaps: Path, disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    lines = swaps.read_text()

    def run(words: list[str]) -> None:
        """What swapoff and swapon do to /proc/swaps."""
        ran.append(words[0])
        swaps.write_text(lines if words[0] == "swapon" else lines.splitlines()[0])

    monkeypatch.setattr(programs, "run", run)
    chosen, reasons = choice.best(wish(Path("/proc/sys")))
    assert chosen is not None
    assert (chosen.name, chosen.swap) == (f"file:{disk.part}", True)
    assert reasons[0].startswith("a file: /proc/sys is on a file system proc")
    before = disk.part.read_bytes()
    root = do(chosen, tmp_path)
    assert superblock.decode(disk.part.read_bytes()).state == superblock.READY
    assert take_back(root) == []
    assert disk.part.read_bytes() == before
    assert ran == ["swapoff", "swapon"] * 2


def test_swap_is_refused_for_a_level_that_keeps_user_pages(swaps: Path) -> None:
    with pytest.raises(DumpError, match="level 23 keeps user pages"):
        choice.named("swap", wish(Path("/nowhere"), level=23))


def test_swap_that_is_too_small_is_refused(swaps: Path) -> None:
    with pytest.raises(DumpError, match="has 100 MiB; a dump takes about 300 MiB"):
        choice.named("swap", wish(Path("/nowhere"), 300))


def test_guest_without_swap_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: Disk
) -> None:
    monkeypatch.setattr(swap, "SWAPS", tmp_path / "none")
    with pytest.raises(DumpError, match="no swap can be the target: there is none"):
        choice.named("swap", wish(tmp_path))


def test_empty_partition_is_prepared_and_given_back(disk: Disk, tmp_path: Path) -> None:
    chosen = choice.named(str(disk.part), wish(tmp_path))
    assert chosen.name == f"file:{disk.part}"
    before = disk.part.read_bytes()
    root = do(chosen, tmp_path)
    assert superblock.decode(disk.part.read_bytes()).state == superblock.READY
    assert take_back(root) == []
    assert disk.part.read_bytes() == before


def test_target_that_was_not_made_after_all_is_nothing_to_undo(
    disk: Disk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = choice.named(str(disk.part), wish(tmp_path))
    before = disk.part.read_bytes()

    def fail(*words: object, **more: object) -> None:
        raise DumpError("it fails")

    monkeypatch.setattr(prepare, "prepare", fail)
    with pytest.raises(DumpError, match="it fails"):
        do(chosen, tmp_path)
    assert take_back(tmp_path / "root") == []
    assert disk.part.read_bytes() == before


def test_partition_that_holds_something_is_not_written(
    made: Callable[..., Path], disk: Disk, tmp_path: Path
) -> None:
    program("/sbin/mke2fs", "-q", "-F", "-t", "ext4", disk.part)
    before = disk.part.read_bytes()
    with pytest.raises(DumpError, match="holds"):
        do(choice.named(str(disk.part), wish(tmp_path)), tmp_path)
    assert disk.part.read_bytes() == before


def test_partition_that_is_too_small_is_refused(disk: Disk, tmp_path: Path) -> None:
    with pytest.raises(DumpError, match="has 100 MiB; a dump takes about 300 MiB"):
        choice.named(str(disk.part), wish(tmp_path, 300))


def test_other_file_systems_with_room_are_told(made: Callable[..., Path]) -> None:
    folder = made("ext4")
    assert folder / "pvdump.img" in choice.elsewhere(wish(Path("/proc/sys")))
