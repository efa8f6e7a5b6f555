"""A guest's disk read through the block driver, from an embedded Xen, as the firmware does it."""

import pytest
from fixtures.bootdisks import DEBIAN_13, MIB, ext, fat, gpt, sample
from fixtures.bootfiles import grubenv, kernels
from fixtures.stack import Stack

import hw
from pvfw.boot import sources
from pvfw.boot.area import Area, Cache
from pvfw.boot.load import load, pages
from pvfw.boot.volumes import ESP, Notes, Volumes
from pvxen.guest import EmbeddedGuest
from pvxen.sink import Memory
from xenpv.block.front import BlkFront
from xenpv.errors import XenError

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
CONFIG = b"""load_env
set default="${saved_entry}"
menuentry one { linux /boot/vmlinuz-1 root=/dev/xvda1; initrd /boot/initrd.img-1; }
menuentry two { linux /boot/vmlinuz-2 root=/dev/xvda1; initrd /boot/initrd.img-2; }
"""


@pytest.mark.parametrize("sector_size", [512, 4096])
@pytest.mark.parametrize("faults", [{}, {"plain": True}], ids=["indirect", "plain"])
def test_the_default_entry_s_kernel_and_initrd_are_read_into_place(sector_size, faults, tmp_path):
    content = sample()
    files = {**kernels("1"), "boot/grub/grub.cfg": CONFIG, "boot/grub/grubenv": grubenv()}
    files["boot/vmlinuz-2"] = content["boot/vmlinuz-6.1.0-56-cloud-amd64"]
    files["boot/initrd.img-2"] = content["boot/file-300000"]
    files["boot/grub/grubenv"] = grubenv(saved_entry="two")
    root = ext(tmp_path, files, "-b", "4096", "-O", DEBIAN_13, size=24 * MIB)
    words = ("-F", "32", "-S", sector_size, "-s", "1")
    size = (40 if sector_size == 512 else 300) * MIB
    esp = fat(tmp_path, {"EFI/BOOT/BOOTX64.EFI": b"MZ"}, *words, size=size)
    data = gpt(tmp_path, [(LINUX, root), (ESP[0], esp)], sector_size=sector_size)
    guest = EmbeddedGuest(seed=3)
    guest.disk("xvda", Memory(data), sector_size=sector_size, **faults)
    stack = Stack()

    async def work():
        disk = BlkFront(stack.loop, stack.grants, await stack.device("device/vbd/51712"))
        await disk.connect()
        notes = Notes()
        volumes = Volumes(notes)
        cache = Cache()
        await volumes.add(cache, "xvda", disk)
        assert [v.name for v in volumes.all] == ["xvda1", "xvda2"]
        menu = await sources.look(volumes, notes)
        assert notes.lines == []
        entry = menu.entries[menu.default]
        assert entry.name == "two"
        searched = cache.reads
        found = []
        for place in (entry.kernel, *entry.initrds):
            file, offset, size = await place.open()
            at = hw.alloc_pages(pages(offset, size))
            assert await load(file, at, offset, size) == size
            found.append(bytes(hw.mem(at, size)))
        # The content does not go through the cache.
        assert cache.reads - searched < 10
        await disk.close()
        cache.close()
        return found

    assert stack.run(work) == [files["boot/vmlinuz-2"], files["boot/initrd.img-2"]]


def test_a_buffer_that_a_silent_backend_may_still_have_is_not_used_again(tmp_path):
    data = ext(tmp_path, {"file": b"x"}, "-t", "ext4", size=8 * MIB)
    guest = EmbeddedGuest(seed=3)
    guest.disk("xvda", Memory(data), never_answers=1)
    stack = Stack()

    async def work():
        disk = BlkFront(stack.loop, stack.grants, await stack.device("device/vbd/51712"))
        await disk.connect()
        before = hw.alloc_pages(1)
        cache = Cache(1)
        area = Area(cache, disk, "xvda")
        with pytest.raises(XenError):
            await area.read(0, 512)
        with pytest.raises(MemoryError, match="no buffer that a backend does not still have"):
            await area.read(0, 512)
        cache.close()
        # The pages of the cache stay taken.
        assert hw.alloc_pages(1) >= before + 5 * 4096

    stack.run(work)
