"""The image counts its boots on a dump target, and passes over an entry that does not come up."""

import errno
import re

import pytest
from fixtures import testkernel
from fixtures.bootdisks import DEBIAN_13, MIB, ext, gpt
from fixtures.triestargets import counter, target
from fixtures.typist import Typist, image_of

from pvfw import superblock, tries
from pvfw.tries import Tries
from pvxen.sink import Memory
from tools.image import build
from tools.imageconfig import ROOT
from xenpv import abi

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
DUMP = "8da63339-0007-60c0-c436-083ac8230908"
FRESH = Tries().encode()
PASSED = r"^pvdump: (.*) is passed over: 3 boots of it did not end; next is (.*)$"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return image_of(build(tmp_path_factory.mktemp("image"), config=ROOT / "pvboot.yaml"))


def files(folder):
    """Three entries: the newest kernel, its recovery entry, an older kernel."""
    kernel = testkernel.bzimage(folder)
    made = {"boot/new": kernel, "boot/old": kernel, "boot/initrd": b"initrd" * 1000}
    for name, linux, options in (("3", "new", "a"), ("2", "new", "single"), ("1", "old", "a")):
        made[f"boot/loader/entries/e{name}.conf"] = (
            f"title Entry {name}\nversion {name}\nlinux /boot/{linux}\ninitrd /boot/initrd\n"
            f"options root=/dev/xvda1 number={name} {options}\n"
        ).encode()
    return made


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("root")
    return ext(folder, files(folder), "-b", "4096", "-O", DEBIAN_13, size=32 * MIB)


@pytest.fixture(scope="module")
def disk(tmp_path_factory, root):
    return bytes(gpt(tmp_path_factory.mktemp("disk"), [(LINUX, root)]))


class Machine:
    """A guest that boots again and again from the same disks.

    boot() takes answers: what the console ends with, and what is typed then.

    Args:
        image: of pvboot.
        disks: name to bytes, or to a sink.

    Attributes: text, of the last boot; number, of the entry that was entered, or None.
    """

    def __init__(self, image, **disks):
        self._image = image
        self.sinks = {
            name: data if isinstance(data, Memory) else Memory(bytearray(data))
            for name, data in disks.items()
        }
        self.options = {}

    def boot(self, line="", answers=()):
        typist = Typist(self._image, (), cmdline=b"pvdump.run=boot " + line.encode())
        for name, sink in self.sinks.items():
            typist.guest.disk(name, sink, **self.options.get(name, {}))
        left = list(answers)

        def type_on(ns):
            if left and self._image.console.endswith(left[0][0]):
                self._image.type(left.pop(0)[1])
            elif not left:
                typist.type_on(ns)

        typist.guest.machine.on_idle = type_on
        assert self._image.run(typist.guest) == abi.SHUTDOWN_poweroff, self._image.text
        self.text = self._image.text
        found = re.findall(r"^kernel: line .* number=(\d)", self.text, re.M)
        self.number = int(found[0]) if found else None
        return self.number

    def passed(self):
        return re.findall(PASSED, self.text, re.M)


@pytest.fixture
def with_target(image, disk):
    def of(sector=FRESH, **options):
        return Machine(image, xvda=disk, xvdb=target(sector, **options))

    return of


def found(machine):
    return counter(machine.sinks["xvdb"].data)


def test_an_entry_that_does_not_come_up_is_passed_over(with_target):
    machine = with_target()
    assert [machine.boot() for _ in range(3)] == [3, 3, 3]
    assert machine.passed() == []
    assert [machine.boot() for _ in range(3)] == [1, 1, 1]
    # The recovery entry has the kernel that did not come up, so it is the last.
    assert machine.passed() == [("Entry 3", "Entry 1")]
    assert [machine.boot() for _ in range(3)] == [2, 2, 2]
    assert machine.boot() == 3
    assert "pvdump: 3 boots of each entry did not end: Entry 3 is tried again\n" in machine.text
    assert found(machine).is_open
    assert [count for _, count in found(machine).records] == [4, 3, 3]


def test_the_count_is_on_the_disk_before_the_kernel_starts_and_nothing_else(with_target):
    machine = with_target(filled=0xA5)
    before = bytes(machine.sinks["xvdb"].data)
    machine.boot()
    after = bytes(machine.sinks["xvdb"].data)
    assert before[: tries.AT] == after[: tries.AT]
    assert before[tries.AT + tries.SIZE :] == after[tries.AT + tries.SIZE :]
    assert [count for _, count in found(machine).records] == [1]
    assert found(machine).is_open


def test_a_boot_that_ended_counts_no_more(with_target):
    machine = with_target()
    for _ in range(5):
        assert machine.boot() == 3
        told = found(machine)
        told.end()
        machine.sinks["xvdb"].data[tries.AT : tries.AT + tries.SIZE] = told.encode()
    assert found(machine).records == []


def test_what_is_named_is_booted_whatever_was_counted(with_target):
    machine = with_target()
    assert [machine.boot("pvdump.entry=e3") for _ in range(4)] == [3] * 4
    assert machine.passed() == []
    assert machine.boot() == 1


@pytest.mark.parametrize("tries_", [1, 2])
def test_the_number_of_tries_can_be_said(with_target, tries_):
    machine = with_target()
    numbers = [machine.boot(f"pvdump.tries={tries_}") for _ in range(tries_ + 1)]
    assert numbers == [3] * tries_ + [1]


def test_without_tries_nothing_is_counted(with_target):
    machine = with_target()
    before = bytes(machine.sinks["xvdb"].data)
    assert [machine.boot("pvdump.tries=0") for _ in range(2)] == [3, 3]
    assert bytes(machine.sinks["xvdb"].data) == before


@pytest.mark.parametrize(
    "sector",
    [
        None,
        tries.MAGIC + b"\xff" * 504,
        tries.MAGIC + bytes(504),
        b"\xff" * 512,
        FRESH[:300] + b"\1" + FRESH[301:],
    ],
)
def test_a_torn_lying_or_missing_counter_counts_as_none(with_target, sector):
    machine = with_target(sector)
    before = bytes(machine.sinks["xvdb"].data)
    assert [machine.boot() for _ in range(2)] == [3, 3]
    if sector is None or sector[:8] != tries.MAGIC:
        assert bytes(machine.sinks["xvdb"].data) == before
    else:
        assert [count for _, count in found(machine).records] == [2]


def test_a_dump_that_was_not_collected_stays_as_it_is(with_target):
    machine = with_target(filled=0x5A)
    data = machine.sinks["xvdb"].data
    block = superblock.decode(data)
    block.state, block.written, block.dump = superblock.WRITING, MIB // 2, 77
    data[:512] = block.encode()
    before = bytes(data)
    assert [machine.boot() for _ in range(4)] == [3, 3, 3, 1]
    assert bytes(data[:512]) == before[:512]
    assert bytes(data[tries.AT + tries.PAGE :]) == before[tries.AT + tries.PAGE :]


def damaged(data, offset, raw):
    data[offset : offset + len(raw)] = raw
    return data


@pytest.mark.parametrize(
    "data",
    [
        damaged(target(FRESH), 0, bytes(8)),
        damaged(target(FRESH), 100, b"\1"),
        damaged(target(FRESH), 2 * MIB - 4096, bytes(512)),
        damaged(target(FRESH), 4086, b"SWAPSPACE2"),
        target(FRESH)[: MIB + 4096],
        target(FRESH)[:8192],
    ],
)
def test_nothing_is_written_where_no_target_is(image, disk, data):
    machine = Machine(image, xvda=disk, xvdb=data)
    assert [machine.boot() for _ in range(2)] == [3, 3]
    assert machine.sinks["xvdb"].data == data


def test_a_disk_that_may_not_be_written_has_no_counter(image, disk):
    machine = Machine(image, xvda=disk, xvdb=target(FRESH))
    machine.options["xvdb"] = {"read_only": True}
    assert [machine.boot() for _ in range(4)] == [3] * 4


def test_a_partition_has_one(image, root, tmp_path):
    data = bytearray(gpt(tmp_path, [(LINUX, root), (DUMP, bytes(target(FRESH)))]))
    at = data.index(superblock.MAGIC)
    machine = Machine(image, xvda=data)
    assert [machine.boot() for _ in range(4)] == [3, 3, 3, 1]
    assert [count for _, count in counter(machine.sinks["xvda"].data, at).records] == [1, 3]


@pytest.mark.parametrize("path", tries.PATHS)
def test_a_file_on_ext4_has_one(image, tmp_path, path):
    made = files(tmp_path) | {path[1:]: bytes(target(FRESH))}
    whole = ext(tmp_path, made, "-b", "4096", "-O", DEBIAN_13, size=32 * MIB)
    machine = Machine(image, xvda=gpt(tmp_path, [(LINUX, whole)]))
    before = bytes(machine.sinks["xvda"].data)
    at = before.index(tries.MAGIC)
    assert [machine.boot() for _ in range(4)] == [3, 3, 3, 1]
    after = bytes(machine.sinks["xvda"].data)
    assert before[:at] + before[at + 512 :] == after[:at] + after[at + 512 :]
    assert [count for _, count in tries.decode(after[at : at + 512]).records] == [1, 3]


def test_a_file_of_another_name_has_none(image, tmp_path):
    made = files(tmp_path) | {"home/pvdump.img": bytes(target(FRESH))}
    whole = ext(tmp_path, made, "-b", "4096", "-O", DEBIAN_13, size=32 * MIB)
    machine = Machine(image, xvda=gpt(tmp_path, [(LINUX, whole)]))
    assert [machine.boot() for _ in range(4)] == [3] * 4


def test_a_kernel_that_was_replaced_is_a_new_one(image, tmp_path):
    made = files(tmp_path)
    part = ext(tmp_path, made, "-b", "4096", "-O", DEBIAN_13, size=32 * MIB)
    machine = Machine(image, xvda=gpt(tmp_path, [(LINUX, part)]), xvdb=target(FRESH))
    assert [machine.boot() for _ in range(4)] == [3, 3, 3, 1]
    again = tmp_path / "again"
    again.mkdir()
    made["boot/initrd"] = b"another initrd"
    part = ext(again, made, "-b", "4096", "-O", DEBIAN_13, size=32 * MIB)
    machine.sinks["xvda"] = Memory(bytearray(gpt(again, [(LINUX, part)])))
    assert machine.boot() == 3


def test_a_disk_of_large_sectors_has_one(image, disk):
    machine = Machine(image, xvda=disk, xvdb=target(FRESH))
    machine.options["xvdb"] = {"sector_size": 4096}
    assert [machine.boot() for _ in range(4)] == [3, 3, 3, 1]


def test_a_disk_that_does_not_answer_costs_a_line(image, disk):
    machine = Machine(image, xvda=disk, xvdb=bytes(MIB))
    machine.options["xvdb"] = {"never_connects": True}
    assert machine.boot() == 3
    assert "pvdump: disk xvdb is not looked at: " in machine.text


class Scratched(Memory):
    """A disk of which some bytes cannot be read.

    Args:
        data: of the disk.
        at: of the first such byte.
        size: how many.
    """

    def __init__(self, data, at, size):
        super().__init__(data)
        self._at, self._end = at, at + size

    def read(self, offset, buffers):
        if offset < self._end and offset + sum(map(len, buffers)) > self._at:
            raise OSError(errno.EIO, "Input/output error")
        super().read(offset, buffers)


def on_ext(folder, made):
    return gpt(folder, [(LINUX, ext(folder, made, "-b", "4096", "-O", DEBIAN_13, size=32 * MIB))])


def test_an_entry_whose_folder_cannot_be_read_costs_no_other_one(image, tmp_path):
    made = files(tmp_path)
    name = "boot/loader/entries/e2.conf"
    # All of the folder is looked through, since there is no such name.
    made[name] = made[name].replace(b"/boot/initrd", b"/boot/rescue/initrd")
    # A folder of 100 KiB, so that what is read together with its middle is all its own.
    for number in range(400):
        made[f"boot/rescue/filler-{number:03}-{'x' * 230}"] = b""
    data = on_ext(tmp_path, made)
    names = [found.start() for found in re.finditer(b"filler-[0-9]+-xxx", data)]
    at = names[len(names) // 2]
    machine = Machine(image, xvda=Scratched(data, at, 1), xvdb=target(FRESH))
    assert [machine.boot() for _ in range(3)] == [3, 3, 3]
    assert machine.boot() == 1
    assert machine.passed() == [("Entry 3", "Entry 1")]


def test_an_initrd_that_cannot_be_read_costs_the_menu_and_another_entry_is_booted(image, tmp_path):
    made = files(tmp_path)
    name = "boot/loader/entries/e3.conf"
    made["boot/scratched"] = b"on a bad sector " * 65536
    made[name] = made[name].replace(b"/boot/initrd", b"/boot/scratched")
    data = on_ext(tmp_path, made)
    machine = Machine(image, xvda=Scratched(data, data.index(b"on a bad sector ") + 5000, 1))
    assert machine.boot(answers=[("boot: ", b"3\r")]) == 1
    assert "Entry 3: " in machine.text
    # Each try costs no memory for good.
    answers = [("boot: ", b"1\r")] * 12 + [("boot: ", b"3\r")]
    assert machine.boot(answers=answers) == 1
