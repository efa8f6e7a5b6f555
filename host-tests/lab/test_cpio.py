"""The archives that Linux unpacks: each field where the newc format has it."""

import io

from lab.cpio import Cpio


def entries(data):
    """(name, mode, content) of each entry, read by the format's own rules."""
    place = 0
    while True:
        assert data[place : place + 6] == b"070701"
        fields = [int(data[place + 6 + 8 * i : place + 14 + 8 * i], 16) for i in range(13)]
        mode, size, length = fields[1], fields[6], fields[11]
        name = data[place + 110 : place + 110 + length - 1].decode()
        start = -(-(place + 110 + length) // 4) * 4
        if name == "TRAILER!!!":
            return
        yield name, mode, data[start : start + size]
        place = -(-(start + size) // 4) * 4


def archive(fill):
    stream = io.BytesIO()
    cpio = Cpio(stream)
    fill(cpio)
    cpio.close()
    return stream.getvalue()


def test_parents_come_before_what_is_in_them():
    data = archive(lambda cpio: cpio.file("/a/b/c", "text", 0o755))
    assert list(entries(data)) == [
        ("a", 0o040755, b""),
        ("a/b", 0o040755, b""),
        ("a/b/c", 0o100755, b"text"),
    ]


def test_a_link_s_content_is_its_target():
    assert list(entries(archive(lambda cpio: cpio.symlink("bin", "usr/bin")))) == [
        ("bin", 0o120777, b"usr/bin")
    ]


def test_a_second_file_of_a_name_is_left_out():
    def fill(cpio):
        cpio.file("x", "first")
        cpio.file("x", "second")

    assert [content for _, _, content in entries(archive(fill))] == [b"first"]


def test_archives_are_padded_so_that_they_can_follow_each_other():
    data = archive(lambda cpio: cpio.file("x", "odd"))
    assert len(data) % 512 == 0
