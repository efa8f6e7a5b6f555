"""A real Linux on a real Xen panics with an image that has recipients."""

import pytest
from fixtures.agetools import Person
from fixtures.armedguest import settings
from fixtures.xens import ONE

from lab import linux
from pvdump.arm import blob
from pvdump.dump.collect import collect, collect_log
from pvdump.dump.info import read_superblock
from pvfw import superblock

pytestmark = pytest.mark.xen

LINE = "pvdump.disk=xvdb pvdump.then=poweroff pvdump.recipients=required"


def test_its_dump_tells_nothing_in_clear_and_opens_with_the_key(at_prompt, target, tmp_path):
    person = Person()
    conf = tmp_path / "conf"
    conf.write_bytes(blob.encode(settings([person])))
    domain = at_prompt(*ONE, "hvm")
    domain.attach("xvdb", target)
    domain.bring("xvdb", {"pvdump.bin": "image-bin", "conf": conf})
    load = linux.kexec("/pvdump.bin", LINE, True) + " --initrd=/conf"
    domain.run(f"{load} || poweroff -f\n{linux.crash(0)}\n")
    assert domain.wait_end() == "poweroff"
    said = [line for line in domain.console().splitlines() if "pvdump: " in line]
    release = linux.release(ONE[0].split()[0])
    assert [line for line in said if release in line] == []
    assert any("dump complete" in line for line in said)
    block = read_superblock(target)
    assert (block.state, block.format) == (superblock.COMPLETE, superblock.FORMAT_AGE)
    content = target.read_bytes()
    assert release.encode() not in content
    key = person.file(tmp_path)
    assert collect_log(target, tmp_path / "log", False, key) == []
    assert b"sysrq: Trigger a crash" in (tmp_path / "log").read_bytes()
    done = collect(target, tmp_path / "vmcore", form="kdump", identity=key)
    assert (done.reason, done.detail) == ("", [])
