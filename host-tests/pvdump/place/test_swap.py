"""Swap as a target: what is left as it was, what is refused, and that swapon works afterwards."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import streamreader
from fixtures.guestdisks import MIB, START, Disk
from fixtures.placed import arm, refused, target
from fixtures.placedcrash import PlacedCrash

from pvdump import cli
from pvdump.place import device, swap
from pvfw import superblock

PAGE = 4096


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def prepare(path: Path, *words: str) -> int:
    return cli.main(["prepare", "--swap", str(path), *words])


def run(*words: object) -> None:
    subprocess.run([str(word) for word in words], check=True, capture_output=True)


@pytest.fixture
def part(disk: Disk) -> Path:
    """A swap partition."""
    run("mkswap", disk.part)
    return disk.part


@pytest.fixture
def whole(disk: Disk) -> Path:
    """A disk that is swap as a whole."""
    path = (device.DEVICES / "xvdb").resolve()
    number = path.stat().st_rdev
    known = device.SYS_DEV_BLOCK / f"{os.major(number)}:{os.minor(number)}"
    known.symlink_to((device.SYS_DEV_BLOCK / "202:16").resolve())
    run("mkswap", path)
    return path


@pytest.fixture
def file(made: Callable[..., Path]) -> Path:
    """A swap file, on ext4."""
    path = made("ext4") / "swapfile"
    path.write_bytes(bytes(48 * MIB))
    path.chmod(0o600)
    run("mkswap", path)
    return path


@pytest.mark.parametrize("kind", ["part", "whole", "file"])
def test_only_the_first_512_bytes_of_swap_change(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    before = path.read_bytes()
    assert prepare(path) == 0
    after = path.read_bytes()
    assert superblock.decode(after).state == superblock.READY
    assert after[512:] == before[512:]
    assert prepare(path) == 0


@pytest.mark.parametrize("kind", ["part", "whole", "file"])
def test_swap_is_used_after_it_was_prepared_and_armed_and_after_a_dump(
    kind: str,
    disk: Disk,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = request.getfixturevalue(kind)
    assert prepare(path) == 0
    header = path.read_bytes()[512:PAGE]
    run("swapon", path)
    try:
        # Armed at each boot, while it is in use.
        assert arm(path) == 0
        wanted = target()
        assert (wanted.name, wanted.swap) == ("xvdb", True)
        raw = disk.image.read_bytes()
        block = superblock.decode(raw[wanted.extents.first() * 512 :][:512])
        assert block.nonce == wanted.nonce
    finally:
        run("swapoff", path)
    if kind == "file":
        run("sync", "-f", path.parent)
    crash = PlacedCrash(content=disk.image.read_bytes())
    crash.configure([wanted])
    if kind == "file":
        run("umount", path.parent)
    crash.run()
    disk.image.write_bytes(crash.disk.data)
    if kind == "file":
        run("mount", disk.part, path.parent)
    subprocess.run(["blockdev", "--flushbufs", str(disk.part)], check=True)
    raw = path.read_bytes()
    assert superblock.decode(raw).state == superblock.COMPLETE
    assert streamreader.read(raw).whole
    assert raw[512:PAGE] == header
    # The next boot: collected, then in use as before.
    assert cli.main(["collect", "--format=elf", str(path), "vmcore"]) == 0
    assert cli.main(["prepare", "--again", str(path)]) == 0
    ready = superblock.decode(path.read_bytes())
    assert ready.state == superblock.READY
    assert ready.nonce not in (block.nonce, bytes(len(block.nonce)))
    assert path.read_bytes()[512:PAGE] == header
    run("swapon", path)
    run("swapoff", path)
    capsys.readouterr()


@pytest.mark.parametrize("kind", ["part", "whole", "file"])
def test_swap_in_use_is_refused_with_the_commands(
    kind: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    path = request.getfixturevalue(kind)
    before = path.read_bytes()
    run("swapon", path)
    try:
        assert prepare(path) == 1
        refused(capsys, f"swapoff {path} && pvdump prepare --swap {path} && swapon {path}")
    finally:
        run("swapoff", path)
    assert path.read_bytes() == before


def test_a_swap_file_that_was_only_allocated_is_refused_with_the_line_that_remakes_it(
    made: Callable[..., Path], capsys: pytest.CaptureFixture[str]
) -> None:
    path = made("ext4") / "swapfile"
    with path.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, 48 * MIB)
    path.chmod(0o600)
    run("mkswap", path)
    assert prepare(path) == 1
    said = capsys.readouterr().err
    assert "UNWRITTEN" in said
    line = said[said.index("swapoff") :].replace("pvdump prepare --swap", "true").strip()
    assert f"dd if=/dev/zero of={path} bs=1M count=48 conv=fsync && mkswap {path}" in line
    subprocess.run(["sh", "-c", line.rpartition(" && ")[0]], check=True, capture_output=True)
    assert prepare(path) == 0


def test_a_dump_that_was_not_collected_is_not_lost_unasked(
    part: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(part) == 0
    block = superblock.decode(part.read_bytes())
    block.state = superblock.COMPLETE
    with part.open("r+b") as stream:
        stream.write(block.encode())
    capsys.readouterr()
    assert prepare(part) == 1
    refused(capsys, "holds a dump, which was not collected")
    assert prepare(part, "--force") == 0


def test_a_boot_loader_before_swap_is_not_lost_unasked(
    part: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with part.open("r+b") as stream:
        stream.write(b"a boot loader")
    before = part.read_bytes()
    assert prepare(part) == 1
    refused(capsys, "its first 1024 bytes hold something")
    assert part.read_bytes() == before


def test_swap_that_is_a_target_is_not_made_a_target_alone(
    part: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(part) == 0
    before = part.read_bytes()
    capsys.readouterr()
    assert cli.main(["prepare", str(part)]) == 1
    refused(capsys, f"is swap as well: `pvdump prepare --swap {part}`")
    assert part.read_bytes() == before


def test_what_is_no_swap_is_refused(disk: Disk, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(disk.part) == 1
    refused(capsys, f"mkswap {disk.part}")


def test_swap_of_an_earlier_version_in_use_is_refused_with_the_commands(
    whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(whole) == 0
    block = superblock.decode(whole.read_bytes())
    block.nonce = bytes(32)
    with whole.open("r+b") as stream:
        stream.write(block.encode())
    run("swapon", whole)
    try:
        assert arm(whole) == 1
        refused(capsys, f"swapoff {whole} && pvdump prepare --swap {whole} && swapon {whole}")
    finally:
        run("swapoff", whole)
    assert arm(whole) == 0
    assert target().nonce not in (None, bytes(32))


def test_swap_that_was_remade_is_not_armed(part: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert prepare(part) == 0
    run("mkswap", part)
    capsys.readouterr()
    assert arm(part) == 1
    refused(capsys, "no pvdump superblock")


@pytest.mark.parametrize(("level", "code"), [("8", 0), ("31", 0), ("log", 0), ("23", 1), ("0", 1)])
def test_a_level_that_keeps_user_pages_is_refused(
    part: Path, level: str, code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert prepare(part) == 0
    capsys.readouterr()
    assert arm(part, f"--level={level}") == code
    if code:
        refused(capsys, f"is swap, and level {level} keeps user pages")


@pytest.mark.parametrize("by", ["number", "name", "uuid", "power"])
def test_swap_that_the_system_resumes_from_is_refused(
    part: Path,
    by: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    number = part.stat().st_rdev
    text = f"{os.major(number)}:{os.minor(number)}"
    links = tmp_path / "disk/by-uuid"
    links.mkdir(parents=True)
    (links / "abc-def").symlink_to(part)
    value = {"number": text, "name": str(part), "uuid": "UUID=abc-def", "power": "/dev/none"}[by]
    (tmp_path / "cmdline").write_text(f"quiet resume={value} ro\n")
    (tmp_path / "resume").write_text(text if by == "power" else "0:0\n")
    monkeypatch.setattr(swap, "CMDLINE", tmp_path / "cmdline")
    monkeypatch.setattr(swap, "POWER", tmp_path)
    monkeypatch.setattr(swap, "DISK_LINKS", tmp_path / "disk")
    before = part.read_bytes()
    assert prepare(part) == 1
    refused(capsys, "is where this system resumes from (resume=)")
    assert part.read_bytes() == before


def test_a_hibernated_system_is_not_written_over(
    part: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with part.open("r+b") as stream:
        stream.seek(PAGE - 10)
        stream.write(b"S1SUSPEND\0")
    assert prepare(part, "--force") == 1
    refused(capsys, "holds a hibernated system")


def test_the_place_of_swap_is_the_partition_s(part: Path) -> None:
    assert prepare(part) == 0
    assert arm(part) == 0
    assert list(target().extents) == [(START // 512, 100 * MIB // 512)]
