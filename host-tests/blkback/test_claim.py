"""A file that somebody uses is given to nobody else by mistake."""

import fcntl
import os
import struct
import subprocess

import pytest

from pvdump.blkback.claim import InUse
from pvdump.blkback.sink import open_sink
from pvdump.dump import holders

WRITER, READER = False, True


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "disk"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.fixture
def use(path):
    """Open the file as a sink. Returns the sink."""
    sinks = []

    def opened(readonly, shared=False):
        sinks.append(open_sink(str(path), readonly, shared))
        return sinks[-1]

    yield opened
    for sink in sinks:
        sink.close()


@pytest.mark.parametrize(
    ("first", "second"), [(WRITER, WRITER), (WRITER, READER), (READER, WRITER)]
)
def test_one_that_writes_is_alone(use, first, second):
    use(first)
    with pytest.raises(InUse, match="in use: another guest or program"):
        use(second)


def test_readers_may_be_many(use):
    for _ in range(3):
        use(READER)


def test_whoever_is_told_that_it_is_shared_is_refused_nothing(use):
    use(WRITER)
    use(WRITER, shared=True)
    use(READER, shared=True)


def test_who_comes_behind_one_that_shares_has_to_be_told(use):
    use(WRITER, shared=True)
    with pytest.raises(InUse):
        use(WRITER)


def test_another_name_of_the_file_is_the_same_file(use, path):
    use(WRITER)
    other = path.with_name("other")
    os.link(path, other)
    with pytest.raises(InUse):
        open_sink(str(other), WRITER, False)


def test_the_file_is_free_when_its_user_has_closed_it(use, path):
    open_sink(str(path), WRITER, False).close()
    use(WRITER)


def test_an_image_of_qemu_is_in_use(use, path):
    # The first of the bytes that it locks, for a reader of what it shares.
    lock = struct.pack(holders.FLOCK, fcntl.F_RDLCK, os.SEEK_SET, 100, 1, 0)
    fd = os.open(path, os.O_RDWR)
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, lock)
    with pytest.raises(InUse):
        use(WRITER)
    os.close(fd)


@pytest.mark.parametrize("readonly", [WRITER, READER])
def test_qemu_may_write_to_no_file_that_a_guest_writes_to(use, path, readonly):
    use(readonly)
    command = ["qemu-io", "-f", "raw", "-c", "write 0 512", str(path)]
    if readonly:
        command[3:3] = ["-r"]
        command[-2] = "read 0 512"
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ("Failed to" in found.stderr) == (readonly is WRITER)


class TestLoopDevice:
    @pytest.fixture
    def loop(self, path, tmp_path, monkeypatch):
        """A loop device on the file, as /sys shows it. Returns its folder."""
        folder = tmp_path / "sys/loop3"
        (folder / "loop").mkdir(parents=True)
        (folder / "loop/backing_file").write_bytes(os.fsencode(path) + b"\n")
        monkeypatch.setattr(holders, "SYS_BLOCK", folder.parent)
        return folder

    @pytest.mark.parametrize("readonly", [WRITER, READER])
    def test_its_file_is_in_use(self, use, loop, readonly):
        with pytest.raises(InUse, match="it backs /dev/loop3"):
            use(readonly)

    def test_its_file_may_be_shared(self, use, loop):
        use(WRITER, shared=True)

    def test_one_that_is_on_another_file_or_on_none_says_nothing(self, path, loop):
        for content in (b"/proc/self/exe\n", b"/none (deleted)\n", b"\n"):
            (loop / "loop/backing_file").write_bytes(content)
            open_sink(str(path), WRITER, False).close()
