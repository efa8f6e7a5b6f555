"""The stream that a dump is: what is on the target, read back by the host's reader."""

import random

from fixtures.crashedguest import REGION, Crash

from pvdump.dump.collect import collect
from pvfw import superblock
from xenpv import abi


def test_whole(tmp_path, capsys):
    crash = Crash()
    assert crash.run() == abi.SHUTDOWN_poweroff
    print(capsys.readouterr().out)
    block = crash.superblock()
    assert block.state == superblock.COMPLETE
    (tmp_path / "disk").write_bytes(crash.disk.data)
    for form in ("kdump", "elf"):
        done = collect(tmp_path / "disk", tmp_path / form, form=form)
        print(done)
        assert not done.reason
    assert 0
