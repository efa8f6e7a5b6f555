"""The guest's memory: its ranges in /proc/iomem, its bytes in /proc/kcore, the crash kernel's."""

from pathlib import Path

import pytest
from fixtures.armingroot import CRASH, MIB, RAM, ArmingRoot

from pvdump.arm import loaded, memory


def test_the_ranges_of_a_dump_are_ram_without_the_crash_kernel(guest: ArmingRoot) -> None:
    found = memory.ranges(guest.path)
    assert (found.ram, found.crash) == (list(RAM), [CRASH])
    assert found.dumped() == [RAM[0], (MIB, CRASH[0]), (CRASH[1], 16 * MIB)]


@pytest.mark.parametrize(
    ("crash", "left"),
    [
        ([], [(0, 8), (10, 20)]),
        ([(0, 8)], [(10, 20)]),
        ([(18, 20), (2, 3)], [(0, 2), (3, 8), (10, 18)]),
        ([(6, 12)], [(0, 6), (12, 20)]),
    ],
)
def test_a_crash_kernel_may_lie_anywhere(
    crash: list[tuple[int, int]], left: list[tuple[int, int]]
) -> None:
    assert memory.Ranges([(0, 8), (10, 20)], crash).dumped() == left


def test_hidden_addresses_are_refused(guest: ArmingRoot) -> None:
    guest.write("proc/iomem", "00000000-00000000 : System RAM\n")
    with pytest.raises(memory.MemoryUnknown, match="shows no addresses: root sees them"):
        memory.ranges(guest.path)


def test_bytes_are_read_by_physical_address(guest: ArmingRoot) -> None:
    guest.put(5 * MIB, b"here")
    with memory.Kcore(guest.path) as kcore:
        assert kcore.read(5 * MIB, 4) == b"here"


@pytest.mark.parametrize("address", [16 * MIB, 16 * MIB - 2, 1 << 60])
def test_what_is_no_ram_is_not_read(guest: ArmingRoot, address: int) -> None:
    with memory.Kcore(guest.path) as kcore, pytest.raises(memory.MemoryUnknown, match="has no 4"):
        kcore.read(address, 4)


@pytest.mark.parametrize("content", [None, b"", b"\x7fELF", b"\1" * 4096])
def test_a_kcore_that_is_none_is_refused(guest: ArmingRoot, content: bytes | None) -> None:
    path = guest.path / memory.KCORE
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content)
    with pytest.raises(memory.MemoryUnknown, match="kcore"):
        memory.Kcore(guest.path)


# The crash kernel's memory.


def load(guest: ArmingRoot) -> bytes:
    blob = guest.path / "blob"
    blob.write_bytes(b"PVDCONF\n, and more")
    guest.kexec(["kexec", "-p", "-s", str(guest.image), f"--initrd={blob}"])
    return blob.read_bytes()


def test_what_was_loaded_is_found(guest: ArmingRoot) -> None:
    blob = load(guest)
    region = loaded.Region(guest.path)
    region.check_image(guest.image.read_bytes())
    region.check_configuration(blob)
    region.check_memory()


def test_an_image_with_another_byte_is_seen(guest: ArmingRoot) -> None:
    load(guest)
    image = bytearray(guest.image.read_bytes())
    image[-1] ^= 1
    with pytest.raises(loaded.NotThere, match="the image is not in the memory"):
        loaded.Region(guest.path).check_image(bytes(image))


def test_a_copy_that_begins_at_no_page_does_not_count(guest: ArmingRoot) -> None:
    blob = load(guest)
    guest.put(9 * MIB, b"\0" * 8 + blob)
    with pytest.raises(loaded.NotThere, match="the configuration is not in the memory"):
        loaded.Region(guest.path).check_configuration(blob)


def test_another_configuration_is_seen(guest: ArmingRoot) -> None:
    blob = load(guest)
    with pytest.raises(loaded.NotThere, match="the configuration is not in the memory"):
        loaded.Region(guest.path).check_configuration(blob + b"!")


@pytest.mark.parametrize("ram", [((MIB, CRASH[0]),), ((MIB, CRASH[0]), (CRASH[1], 12 * MIB)), ()])
def test_a_list_of_memory_that_lacks_some_is_seen(
    guest: ArmingRoot, ram: tuple[tuple[int, int], ...]
) -> None:
    load(guest)
    guest.put(CRASH[0] + 0x1000, guest.core(ram).ljust(4096, b"\0"))
    with pytest.raises(loaded.NotThere, match="the list of all the guest's memory"):
        loaded.Region(guest.path).check_memory()


def test_without_a_reservation_there_is_nothing_to_look_at(tmp_path: Path) -> None:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/iomem").write_text("00100000-00ffffff : System RAM\n")
    with pytest.raises(memory.MemoryUnknown, match="no memory is reserved"):
        loaded.Region(tmp_path)
