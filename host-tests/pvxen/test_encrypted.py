"""The image itself encrypts a dump: Debian's age and pyrage open it."""

import pytest
from fixtures import streamreader
from fixtures.agetools import Person
from fixtures.armedguest import settings
from fixtures.smallcrash import SmallCrash

from pvdump.arm import blob
from pvfw import superblock
from pvxen.image import EmbeddedImage
from tools.image import build
from xenpv import abi

BLOB_AT = 0x6A0000
PEOPLE = [Person() for _ in range(16)]


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    built = build(tmp_path_factory.mktemp("image"))
    return EmbeddedImage(built.elf.read_bytes(), built.bin.read_bytes())


def armed(people, **options):
    """A small guest whose image has a configuration with these recipients."""
    raw = blob.encode(settings(people))
    crash = SmallCrash(modules=((BLOB_AT, len(raw)),), **options)
    crash.guest.machine.ram[BLOB_AT : BLOB_AT + len(raw)] = raw
    return crash


@pytest.mark.parametrize("number", [1, 16])
def test_the_dump_is_the_one_that_is_written_without_recipients(number, image, tmp_path):
    plain = SmallCrash(ram=image.ram)
    assert plain.by_image(image).reason == abi.SHUTDOWN_poweroff
    expected = streamreader.read(bytes(plain.disk.data))
    crash = armed(PEOPLE[:number], ram=image.ram)
    outcome = crash.by_image(image)
    assert (outcome.reason, outcome.state) == (abi.SHUTDOWN_poweroff, superblock.COMPLETE)
    disk = bytes(crash.disk.data)
    for person in PEOPLE[:number]:
        found = streamreader.decrypted(disk, person.by_pyrage)
        assert found.whole
        assert found.pages == expected.pages
    file, is_whole = streamreader.age_file(disk)
    assert is_whole
    assert PEOPLE[0].by_age(file, tmp_path)[1] == 0
    assert "encrypted to N recipients" in "\n".join(outcome.lines)


def test_two_dumps_with_the_same_configuration_have_other_keys(image):
    files = []
    for _ in range(2):
        crash = armed(PEOPLE[:1], ram=image.ram)
        crash.by_image(image)
        files.append(streamreader.age_file(bytes(crash.disk.data))[0])
    assert files[0][:100] != files[1][:100]
