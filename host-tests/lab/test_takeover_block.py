"""Linux is killed with its disk connected and reads and writes under way; pvdump takes it over.

Nothing here is left to chance: what serves the disk stands still while the guest fills the block
ring, the guest panics only when dom0 has seen as many requests unanswered as the ring holds, and
the disk goes on at a moment that the test chooses: before the crash kernel starts, or when it has
been seen to wait. Then the dump must be whole, and of the rest of the disk nothing may have changed
but what the dead kernel was writing.
"""

import contextlib
import hashlib
import os

import pytest
from blkback.dom0 import Site
from fixtures.xens import ONE

from lab import linux, standstill
from pvdump.dump.collect import collect
from pvdump.dump.info import read_superblock
from pvfw import superblock
from xenpv import abi

pytestmark = pytest.mark.xen

MIB = 1 << 20
SECTOR = 512
XVDB = 51728
ENTRIES = 32  # of the ring of one page, which is what Debian's front end uses
# What is written is a file that the guest holds, which other levels leave out.
DUMP = "pvdump.then=poweroff pvdump.disk=xvdb pvdump.level=0"
# What the dead kernel writes and reads, far behind the dump.
PLACE = 480
STREAMS = 3
PIECE = 2  # MiB of each, a MiB at a time
# Streams of either kind that are started: less than fills the ring, and together more than that. A
# MiB is 8 requests where they are indirect, else 24.
STARTED = {"blkback": 3, "qdisk": 1, "pvdump": 3}
CONNECTED = 4


def run(streams):
    """The guest's lines: all streams under way, and a panic when it is told to."""
    lines = [
        f"{linux.kexec('/pvdump.bin', DUMP, file_mode=True)} || poweroff -f",
        "exec 6</dev/hvc0",
        linux.wait_disk("xvdb"),
        "echo ready; read line <&6",
    ]
    for i in range(streams):
        at = PLACE + i * PIECE
        lines += [
            f"dd if=/dev/xvdb of=/dev/null bs=1M count={PIECE} skip={at} iflag=direct &",
            f"dd if=/noise of=/dev/xvdb bs=1M count={PIECE} skip={i * PIECE} seek={at}"
            " oflag=direct &",
        ]
    lines += [
        "read line <&6; echo inflight $(cat /sys/block/xvdb/inflight)",
        linux.crash(),
    ]
    return "".join(f"{line}\n" for line in lines)


class Disk:
    """A dump target whose far end holds old data, and the new data that a guest writes there."""

    def __init__(self, path, folder):
        self.path = path
        self.old, self.new = os.urandom(STREAMS * PIECE * MIB), os.urandom(STREAMS * PIECE * MIB)
        with path.open("r+b") as stream:
            stream.seek(PLACE * MIB)
            stream.write(self.old)
        self.noise = folder / "noise"
        self.noise.write_bytes(self.new)
        self.vmcore = folder / "vmcore"

    def check(self):
        """The dump is whole and true; everything behind it is as it was, or as it was written."""
        block = read_superblock(self.path)
        assert block.state == superblock.COMPLETE
        assert collect(self.path, self.vmcore).reason == ""
        held = set(pieces(self.vmcore.read_bytes(), abi.PAGE_SIZE))
        assert not set(pieces(self.new, abi.PAGE_SIZE)) - held
        with self.path.open("rb") as stream:
            stream.seek(block.data_offset + block.dump_size)
            rest = stream.read()
        area = len(rest) - (512 - PLACE) * MIB
        assert not rest[:area].strip(b"\0")
        assert not rest[area + len(self.old) : -superblock.COPY_SIZE].strip(b"\0")
        found = pieces(rest[area : area + len(self.old)], SECTOR)
        sectors = zip(pieces(self.old, SECTOR), pieces(self.new, SECTOR), found, strict=True)
        assert all(is_now in (old, new) for old, new, is_now in sectors)


def pieces(data, size):
    return [hashlib.blake2b(data[i : i + size]).digest() for i in range(0, len(data), size)]


@pytest.fixture
def disk(target, tmp_path):
    return Disk(target, tmp_path)


@pytest.fixture
def stall():
    """What stands still; closing it lets it go on, which happens in any case."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def killed(at_prompt, restored, guest, disk, stall):
    """Panics a Debian guest with a full ring that is not answered; gives its handle.

    The disk of a "qdisk" guest on PVH must be there when it boots, so that one boots.
    """
    files = {"pvdump.bin": "image-bin", "noise": disk.noise}

    def boot():
        spec = guest(
            "linux-crash.yaml",
            run=run(STARTED["qdisk"]),
            vcpus=1,
            memory=160,
            disks=[{"vdev": "xvdb", "file": str(disk.path), "backend": "qdisk"}],
            files={name: str(path) for name, path in files.items()},
            type="pvh",
            on_soft_reset="preserve",
        )
        return restored(*ONE).boot(spec)

    def begin(kind, backend, emulated):
        if (kind, backend) == ("pvh", "qdisk"):
            return boot()
        domain = at_prompt(*ONE, kind, pvdump=backend == "pvdump")
        if backend == "pvdump":
            Site(domain.xen).give(domain, disk.path)
        else:
            domain.attach("xvdb", disk.path, backend, emulated=emulated)
        domain.bring("xvdb", files)
        domain.run(run(STARTED[backend]))
        return domain

    def kill(kind, backend, closes=True, emulated=True):
        domain = begin(kind, backend, emulated)
        domain.wait_console("^ready")
        if not closes:
            domain.keep_front_ends()
        if backend == "blkback":
            stall.enter_context(standstill.disk(domain.xen, disk.path))
        else:
            pid = f"$(xenstore-read /local/domain/{domain.domid}/image/device-model-pid)"
            pid = "$(cat /run/pid)" if backend == "pvdump" else pid
            stall.enter_context(standstill.process(domain.xen, pid))
        die(domain)
        return domain

    return kill


def die(domain):
    """Have a guest fill its ring and panic; whatever serves it stands still."""
    domain.type("go")
    domain.wait_block_ring(XVDB, lambda ring: ring.unanswered == ENTRIES)
    domain.type("panic")
    reads, writes = domain.wait_console(r"^inflight (\d+) (\d+)").groups()
    assert int(reads) > 0
    assert int(writes) > 0
    domain.wait_console("Kernel panic")


def front(domain, key):
    return f"/local/domain/{domain.domid}/device/vbd/{XVDB}/{key}"


def wait_node(path, pattern, domain):
    """Wait until a node matches a shell pattern."""
    domain.xen.sh(
        "while true; do\n"
        f"    case $(xenstore-read {path} 2>/dev/null) in {pattern}) exit 0;; esac; usleep 50000\n"
        "done"
    )


def finish(domain, disk):
    assert domain.wait_end() == "poweroff", domain.console()
    assert "pvdump: dump complete" in domain.console()
    disk.check()


@pytest.mark.parametrize("backend", STARTED)
def test_a_soft_reset_guest_takes_a_disk_over_whose_requests_end_before(
    killed, disk, stall, backend
):
    domain = killed("hvm", backend)
    stall.close()
    finish(domain, disk)


def test_a_soft_reset_guest_connects_while_the_earlier_requests_are_under_way(killed, disk, stall):
    # A QEMU that emulates the disk would wait for it before the crash kernel runs.
    domain = killed("hvm", "blkback", closes=False, emulated=False)
    domain.wait_console("^pvdump: kernel ")
    wait_node(front(domain, "state"), CONNECTED, domain)
    # What it asks for waits as well, behind the requests of before.
    domain.wait_block_ring(XVDB, lambda ring: ring.unanswered > 0)
    stall.close()
    finish(domain, disk)


def test_a_resumed_guest_takes_a_disk_over_whose_requests_ended_before(killed, disk, stall):
    domain = killed("pvh", "blkback")
    assert domain.wait_end() == "soft-reset"
    stall.close()
    domain.wait_block_ring(XVDB, lambda ring: ring.unanswered == 0)
    domain.resume()
    finish(domain, disk)


def test_a_resumed_guest_asks_blkback_again_until_the_earlier_requests_have_ended(
    killed, disk, stall
):
    domain = killed("pvh", "blkback")
    assert domain.wait_end() == "soft-reset"
    domain.resume()
    domain.wait_console(f"{ENTRIES} requests of the crashed kernel have no answer after 60 s")
    # It closed at once, forgot what was under way, and now does not take the new ring.
    error = f"/local/domain/0/error/backend/vbd/{domain.domid}/{XVDB}/error"
    wait_node(error, "*pending*", domain)
    stall.close()
    finish(domain, disk)


@pytest.mark.parametrize("backend", STARTED)
def test_a_resumed_guest_waits_for_a_backend_that_has_not_answered_yet(
    killed, disk, stall, backend
):
    domain = killed("pvh", backend)
    assert domain.wait_end() == "soft-reset"
    domain.resume()
    domain.wait_console(f"waiting for the answers to {ENTRIES} requests of the crashed kernel")
    stall.close()
    finish(domain, disk)
