"""The image in a region of 4 MiB and RAM of any size: the same dump, with the same memory."""

import pytest
from fixtures import streamreader
from fixtures.largekernel import PAGE, LargeKernel

from pvfw import superblock
from pvxen.guest import EmbeddedGuest
from pvxen.image import EmbeddedImage
from pvxen.sink import Memory
from tools.image import build
from xenpv import abi

DISK = 64 << 20


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    built = build(tmp_path_factory.mktemp("image"))
    return built.elf.read_bytes(), built.bin.read_bytes()


@pytest.mark.parametrize("gib", [4, 64, 1023])
def test_the_pages_to_keep_are_dumped_and_no_others(files, gib):
    kernel, disk = LargeKernel(gib), Memory(DISK)
    guest = EmbeddedGuest(**kernel.options)
    kernel.leave(guest.machine.ram)
    disk.data[:512] = superblock.Superblock(bytes(range(16)), DISK).encode()
    guest.disk("xvdb", disk)
    image = EmbeddedImage(*files)
    assert image.run(guest) == abi.SHUTDOWN_poweroff, image.text
    found = streamreader.read(bytes(disk.data))
    assert found.whole, image.text
    assert found.unreadable == set()
    assert sorted(found.pages) == kernel.kept
    wrong = [pfn for pfn, page in found.pages.items() if bytes(guest.machine.page(pfn)) != page]
    assert wrong == []
