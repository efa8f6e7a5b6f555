"""makedumpfile's flattened form is read, and the pages of its file are counted."""

import struct

import pytest

from lab import LabError, flattened

HEAD = b"makedumpfile\0".ljust(4096, b"\0")
END = struct.pack(">qq", -1, -1)


def record(at, data):
    return struct.pack(">qq", at, len(data)) + data


@pytest.fixture
def disk(tmp_path):
    """Gives a function that writes a flattened form, and what stood on the disk behind it."""

    def write(*parts):
        path = tmp_path / "disk"
        path.write_bytes(b"".join(parts) + b"\xa5" * 5000)
        return path

    return write


def test_records_are_put_where_they_say_up_to_the_end(disk, tmp_path):
    path = disk(HEAD, record(6, b"late"), record(0, b"early"), END)
    flattened.rearranged(path, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == b"early\0late"


def test_a_form_without_its_end_is_refused(disk, tmp_path):
    path = disk(HEAD, record(0, b"early"))
    path.write_bytes(path.read_bytes()[: 4096 + 16 + 4])
    with pytest.raises(LabError, match="ends early"):
        flattened.rearranged(path, tmp_path / "out")


def test_another_content_is_refused(disk, tmp_path):
    with pytest.raises(LabError, match="not makedumpfile's"):
        flattened.rearranged(disk(b"PVDUMP\r\n"), tmp_path / "out")


def test_pages_are_the_bits_of_the_second_bitmap(tmp_path):
    file = bytearray(4096 * 8)
    struct.pack_into("<2I", file, 432, 2, 4)
    file[3 * 4096 : 5 * 4096] = b"\xff" * 8192  # the first bitmap: what is memory
    file[5 * 4096] = 0b101
    file[7 * 4096 - 1] = 0x80
    file[7 * 4096] = 0xFF  # behind both
    (tmp_path / "kdump").write_bytes(file)
    assert flattened.pages(tmp_path / "kdump") == 3
