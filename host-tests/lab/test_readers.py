"""pykdumpfile reads what collect makes of a dump: each page by its physical address.

What the dump has is read from the target, by the tests' own reader of streams.
"""

import hashlib
import subprocess
import sys

import pytest
from fixtures import streamreader
from fixtures.crashedguest import SIZE, Crash

from lab import LabError, readers
from pvdump.dump.collect import collect

PAGE = 4096
FORMS = [("elf", "none"), ("kdump", "none"), ("kdump", "zlib"), ("kdump", "zstd")]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    """A target with the whole dump of a guest that crashed."""
    crash = Crash()
    crash.die()
    crash.run()
    path = tmp_path_factory.mktemp("target") / "disk"
    path.write_bytes(crash.disk.data)
    return path


@pytest.fixture(scope="module")
def pages(target):
    """The SHA-256 of each page of the dump, by its frame."""
    found = streamreader.read(target.read_bytes())
    assert found.whole
    return {frame: hashlib.sha256(page).hexdigest() for frame, page in found.pages.items()}


@pytest.mark.parametrize(("form", "compress"), FORMS)
def test_every_page_is_read_by_its_physical_address(target, pages, tmp_path, form, compress):
    vmcore = tmp_path / "vmcore"
    collect(target, vmcore, form=form, compress=compress)
    kind = "elf" if form == "elf" else "diskdump"
    assert readers.kdumpfile(vmcore, pages) == (kind, list(pages.values()))


@pytest.mark.parametrize("form", ["kdump", "elf"])
def test_a_dump_sent_through_a_pipe_is_read_as_it_is(target, pages, tmp_path, form):
    vmcore = tmp_path / "vmcore"
    command = [sys.executable, "-m", "pvdump", "collect", "--format", form, target, "-"]
    with vmcore.open("wb") as out:
        subprocess.run(command, stdout=out, check=True)
    assert readers.kdumpfile(vmcore, pages)[1] == list(pages.values())


@pytest.mark.parametrize(("form", "compress"), FORMS[1:])
def test_a_page_that_is_no_memory_is_not_read(target, pages, tmp_path, form, compress):
    vmcore = tmp_path / "vmcore"
    collect(target, vmcore, form=form, compress=compress)
    gaps = [0, 0x200, SIZE // PAGE, 1 << 40]
    gaps = [frame for frame in gaps if frame not in pages]
    assert readers.kdumpfile(vmcore, gaps)[1] == [None] * len(gaps)


def test_what_is_no_dump_is_refused(target, tmp_path):
    with pytest.raises(LabError, match="kdumpfile"):
        readers.kdumpfile(target, [0])
