"""Real disks with damage: whatever is damaged, reading ends in content or in the one kind of error.

Damage is done to what the readers look at: the ranges are those that they read of the sound disk.
"""

import random
import struct
import zlib
from collections import Counter

import pytest
from fixtures.bootdisks import (
    DEBIAN_13,
    MIB,
    ImageDisk,
    debugfs,
    ext,
    fat,
    gpt,
    links,
    mbr,
    run,
)
from fixtures.bootfiles import UUID, grub_mkconfig, grubenv, kernels, linux, uki

import hw
from pvfw.boot import bzimage, files, partitions, sources
from pvfw.boot.area import READS_MAX, Area, Cache
from pvfw.boot.entries import ENTRIES_MAX
from pvfw.boot.errors import BootError
from pvfw.boot.load import load, pages
from pvfw.boot.nodes import FILE, FOLDER, LINK
from pvfw.boot.volumes import ESP, NOTES_MAX, Notes, Volumes
from pvxen.machine import Machine

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
MEMORY, ROOM = 0x400000, 8 * MIB
U16, U32, U64 = (1 << 16) - 1, (1 << 32) - 1, (1 << 64) - 1
EDGES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, U16, 1 << 16, 1 << 31, U32, 1 << 63, U64)


class RecordingArea(Area):
    """An Area that notes, as (offset on the disk, bytes), what is read of it."""

    ranges: list

    async def read(self, offset, size):
        self.ranges.append((self.first + offset, size))
        return await super().read(offset, size)


class Damage:
    """A disk that is damaged, and made sound again.

    Attributes:
        data (bytearray): its bytes.
        ranges: (offset, bytes) of what may be damaged.
    """

    def __init__(self, data, ranges):
        self.data = bytearray(data)
        self.ranges = ranges
        self._before = []

    def put(self, at, raw):
        raw = raw[: len(self.data) - at]
        self._before.append((at, self.data[at : at + len(raw)]))
        self.data[at : at + len(raw)] = raw

    def draw(self, choice):
        """Damage one to four places."""
        for _ in range(choice.randint(1, 4)):
            begin, size = choice.choice(self.ranges)
            at = begin + choice.randrange(size)
            act = choice.randrange(5)
            if act == 0:
                raw = bytes([choice.randrange(256)])
            elif act < 3:
                form = choice.choice("BHIQ")
                at -= at % struct.calcsize(form)
                value = choice.choice(EDGES) + choice.randint(-1, 1)
                raw = struct.pack("<" + form, value & (1 << 8 * struct.calcsize(form)) - 1)
            elif act == 3:
                other, length = choice.choice(self.ranges)
                raw = bytes(self.data[other : other + min(length, choice.choice((4, 12, 32, 512)))])
            else:
                raw = choice.randbytes(choice.choice((1, 2, 4, 16)))
            self.put(at, raw)

    def mend(self):
        while self._before:
            at, raw = self._before.pop()
            self.data[at : at + len(raw)] = raw


def told(error):
    """Check the text of an error: one printable line."""
    assert str(error).isprintable()
    assert 0 < len(str(error)) < 500


async def walk(fs, done):
    """Look at all folders and files, up to a number, and load what has room."""
    todo = [(b"", 0)]
    for _ in range(400):
        if not todo:
            break
        path, depth = todo.pop()
        try:
            for name in (await files.names(fs, path))[:40]:
                here = path + b"/" + name
                node = await files.find(fs, here)
                if node is None:
                    continue
                if node.kind == FOLDER and depth < 5:
                    todo.append((here, depth + 1))
                elif node.kind == LINK:
                    await fs.target(node)
                elif node.kind == FILE:
                    await load_some(await fs.file(node, "a file"), 0)
                    done["files read"] += 1
        except BootError as e:
            told(e)
            done["errors"] += 1


async def load_some(file, offset, size=None):
    """Load a file, and check that no byte of memory beyond what load() asks for is changed."""
    size = min(file.size - offset if size is None else size, ROOM - 8192)
    room = pages(offset, size) * 4096
    hw.mem(MEMORY + room, 4096)[:] = b"\xa5" * 4096
    try:
        await load(file, MEMORY, offset, size)
    finally:
        assert bytes(hw.mem(MEMORY + room, 4096)) == b"\xa5" * 4096


def examine(data, done):
    """Mount the file system of a disk and walk it."""
    cache = Cache()
    try:
        fs = run(files.mount(Area(cache, ImageDisk(data), "xvda")))
        if fs is None:
            done["nothing"] += 1
            return
        run(walk(fs, done))
    except BootError as e:
        told(e)
        done["refused"] += 1
    finally:
        assert cache.reads <= READS_MAX
        cache.close()


def ranges(data):
    """Return what walk() reads of a file system, without the content of files."""
    area = RecordingArea(Cache(), ImageDisk(data), "xvda")
    area.ranges = []
    sound = Counter()
    run(walk(run(files.mount(area)), sound))
    assert sound["errors"] == 0
    assert sound["files read"] > 5
    area.cache.close()
    return area.ranges + [(0, 512), (1024, 1024)] * (len(area.ranges) // 20)


def small():
    choice = random.Random(1)
    found = {f"f{size}": choice.randbytes(size) for size in (0, 50, 100, 5000, 70000)}
    found.update({f"boot/grub/{i:02}-{'x' * 40}": b"%d" % i for i in range(20)})
    found["boot/large"] = choice.randbytes(400000)
    return found


@pytest.fixture(scope="module")
def ext_disks(tmp_path_factory):
    made = []
    for words in (
        ("-t", "ext2", "-b", "1024"),
        ("-b", "4096", "-O", DEBIAN_13),
        ("-b", "4096", "-O", DEBIAN_13 + ",inline_data"),
        ("-b", "1024", "-O", DEBIAN_13.replace("resize_inode", "meta_bg")),
    ):
        folder = tmp_path_factory.mktemp("ext")
        data = ext(folder, {**small(), **links()}, *words, size=8 * MIB)
        made.append(data)
    # A file of many extents, in a tree of two levels.
    folder = tmp_path_factory.mktemp("ext")
    filler = {f"f/{i:04}": b"x" * 1024 for i in range(900)}
    ext(folder, {**small(), **filler}, "-t", "ext4", "-b", "1024", "-N", "2048", size=4 * MIB)
    (folder / "more").write_bytes(bytes(range(256)) * 4000)
    made.append(
        debugfs(
            folder,
            f"write {folder / 'more'} filler",
            *(f"rm f/{i:04}" for i in range(0, 900, 2)),
            f"write {folder / 'f' if (folder / 'f').exists() else folder / 'more'} many",
        )
    )
    return made


@pytest.mark.usefixtures("machine")
@pytest.mark.fuzz("boot-ext")
def test_a_damaged_ext_ends_in_content_or_an_error(ext_disks, fuzz):
    play([Damage(data, ranges(data)) for data in ext_disks], fuzz, 150)


@pytest.mark.usefixtures("machine")
@pytest.mark.fuzz("boot-fat")
def test_a_damaged_fat_ends_in_content_or_an_error(tmp_path_factory, fuzz):
    made = []
    for words, size in ((("-F", "12"), 4), (("-F", "16"), 32), (("-F", "32", "-s", "1"), 40)):
        folder = tmp_path_factory.mktemp("fat")
        made.append(fat(folder, small(), *words, size=size * MIB))
    play([Damage(data, ranges(data)) for data in made], fuzz, 150)


def play(disks, fuzz, usual):
    for seed in fuzz.seeds(usual):
        choice = random.Random(seed)
        disk = choice.choice(disks)
        disk.draw(choice)
        examine(disk.data, fuzz.done)
        disk.mend()


@pytest.mark.usefixtures("machine")
@pytest.mark.fuzz("boot-partitions")
def test_a_damaged_partition_table_ends_in_partitions_or_an_error(tmp_path, fuzz):
    parts = [("83", bytes(MIB))] * 6
    tables = [
        Damage(mbr(tmp_path, parts), [(0, 512)] + [((4 + 2 * i) * MIB, 512) for i in range(3)])
    ]
    data = gpt(tmp_path, [(LINUX, bytes(MIB)), (ESP[0], bytes(MIB))])
    tables.append(Damage(data, [(0, 512), (512, 92), (1024, 512), (len(data) - 512, 92)]))
    for seed in fuzz.seeds(600):
        choice = random.Random(seed)
        disk = choice.choice(tables)
        disk.draw(choice)
        if disk is tables[1] and choice.random() < 0.8:
            seal(disk)
        cache = Cache()
        try:
            found = run(partitions.read(Area(cache, ImageDisk(disk.data), "xvda")))
        except BootError as e:
            told(e)
            fuzz.done["refused"] += 1
        else:
            fuzz.done["partitions"] += len(found.partitions)
            for each in found.partitions:
                assert 0 < each.first < each.first + each.size <= len(disk.data)
            assert len(found.notes) <= partitions.NOTES_MAX
        cache.close()
        disk.mend()


def seal(disk):
    """Make the CRC of the first header right, and that of its entries where they can be read."""
    length, at, number, size = struct.unpack_from("<I56xQII", disk.data, 512 + 12)
    raw = disk.data[at * 512 : at * 512 + min(number * size, MIB)]
    disk.put(512 + 88, struct.pack("<I", zlib.crc32(raw)))
    disk.put(512 + 16, bytes(4))
    disk.put(512 + 16, struct.pack("<I", zlib.crc32(disk.data[512 : 512 + min(length, 512)])))


# What is put into texts, among what stands there.
WORDS = (
    *(
        b"{",
        b"}",
        b"'",
        b'"',
        b"$",
        b"${",
        b"\\",
        b"\n",
        b";",
        b"if ",
        b"then ",
        b"fi\n",
        b"[ ",
        b" ]",
    ),
    *(b"while true; do ", b"done\n", b"function f {", b"f\n", b"menuentry x {", b"submenu x {"),
    *(b"set a=$a$a$a$a ", b"source $config_file\n", b"configfile $config_file\n", b"-f ", b"( "),
    *(b"linux /boot/vmlinuz-1 ", b"search --file ", b"\0", b"\xff", b"\x1b[2J", b"../", b"+0-9"),
    *(b"label ", b"include x\n", b"options $x ${", b"9" * 30, b"x" * 300, b"for i in $a; do "),
)


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """Disks with boot loaders' files, and the ranges of these."""
    folder = tmp_path_factory.mktemp("grub")
    cfg = grub_mkconfig(folder, versions=("1", "2"))
    grubs = {
        **kernels("1", "2"),
        "boot/grub/grub.cfg": cfg,
        "boot/grub/grubenv": grubenv(saved="1"),
    }
    entry = (
        b"title Linux\nversion 1\nsort-key a\nlinux /boot/vmlinuz-1\ninitrd /boot/initrd.img-1\n"
    )
    bls = {**kernels("1"), "loader/entries/a+3-0.conf": entry + b"options root=/dev/xvda1 $x\n"}
    bls.update({"loader/entries/b.conf": entry, "loader/loader.conf": b"timeout 3\ndefault b*\n"})
    bls["grub2/grubenv"] = grubenv(saved_entry="b", x="y")
    conf = b"default l1\ntimeout 50\nlabel l1\nmenu label x\nlinux ../vmlinuz-1\nappend root=x\n"
    lines = {**kernels("1"), "boot/extlinux/extlinux.conf": conf + b"include more\n"}
    lines["boot/extlinux/more"] = b"label l2\nkernel /boot/vmlinuz-1\ninitrd a,b\n"
    made = []
    for i, tree in enumerate((grubs, bls, lines)):
        folder = tmp_path_factory.mktemp(f"text{i}")
        data = ext(folder, tree, "-t", "ext4", "-U", UUID, size=8 * MIB)
        names = [name for name in tree if "vmlinuz" not in name and "initrd" not in name]
        made.append(Damage(data, _places(data, names)))
    return made


def _places(data, names):
    hw.attach(Machine())
    fs = run(files.mount(Area(Cache(), ImageDisk(data), "xvda")))
    found = []
    for name in names:
        file = run(files.open_file(fs, name.encode()))
        found += list(file.runs.pieces(0, file.size))
    return found


@pytest.mark.usefixtures("machine")
@pytest.mark.fuzz("boot-sources")
def test_damaged_files_of_boot_loaders_end_in_a_menu_or_notes(texts, fuzz):
    for seed in fuzz.seeds(300):
        choice = random.Random(seed)
        disk = choice.choice(texts)
        for _ in range(choice.randint(1, 6)):
            begin, size = choice.choice(disk.ranges)
            raw = choice.choice(WORDS) * choice.choice((1, 1, 1, 5))
            disk.put(begin + choice.randrange(size), raw[:size])
        ask(disk.data, fuzz.done)
        disk.mend()


def ask(data, done):
    notes = Notes()
    volumes = Volumes(notes)
    cache = Cache()
    try:
        run(volumes.add(cache, "xvda", ImageDisk(data)))
        menu = run(sources.look(volumes, notes))
    except BootError as e:
        told(e)
        done["refused"] += 1
        return
    finally:
        assert cache.reads <= READS_MAX
        cache.close()
    assert len(notes.lines) <= NOTES_MAX
    assert all(line.isprintable() for line in notes.lines)
    assert len(menu.entries) <= ENTRIES_MAX
    assert not menu.entries or menu.default < len(menu.entries)
    for entry in menu.entries:
        assert (entry.name + entry.id).isprintable()
        assert all(32 <= c != 127 for c in entry.options)
    done["entries"] += len(menu.entries)
    done["notes"] += len(notes.lines)


@pytest.mark.usefixtures("machine")
@pytest.mark.fuzz("boot-programs")
def test_a_damaged_kernel_or_unified_image_ends_in_a_place_within_it_or_an_error(tmp_path, fuzz):
    (tmp_path / "initrd").write_bytes(b"initrd" * 1000)
    kernel = linux("bookworm")
    program = uki(tmp_path, kernel, f"--initrd={tmp_path / 'initrd'}", "--cmdline=a=b")
    head = kernel.read_bytes()
    data = fat(tmp_path, {"EFI/Linux/a.efi": program}, "-F", "32", "-s", "8", size=300 * MIB)
    at = data.index(program[:512])
    disk = Damage(data, [(at, 1024)])
    image = Damage(head[:1024], [(0x1F1, 0x90)])
    for seed in fuzz.seeds(200):
        choice = random.Random(seed)
        image.draw(choice)
        try:
            found = bzimage.parse(bytes(image.data), len(head))
        except BootError as e:
            told(e)
            fuzz.done["kernels refused"] += 1
        else:
            fuzz.done["kernels"] += 1
            assert found.entry < found.size <= len(head) - found.offset
            assert found.size <= found.memory <= bzimage.SIZE_MAX
            assert 1 << 20 <= found.address <= bzimage.ADDRESS_MAX
        image.mend()
        disk.draw(choice)
        ask(disk.data, fuzz.done)
        disk.mend()
