"""The self-check on the embedded machine: main() from command line to the end of the domain."""

import pytest
from fixtures.crashedguest import Crash

import hw
from pvfw import main
from pvxen.sink import Memory
from xenpv import abi


@pytest.mark.parametrize("features", [0, 1])
def test_the_check_passes_on_a_guest_that_works(features, capsys):
    line = "pvdump.run=check pvdump.disk=xvdb"
    crash = Crash(line, guest={"server_features": features, "door": "pvh"})
    assert crash.run() == abi.SHUTDOWN_poweroff
    said = capsys.readouterr().out
    assert "xenstore: first client" in said
    assert "xenstore: second client" in said
    assert "disk xvdb: 32 MiB, writable" in said
    assert "check passed" in said
    assert bytes(crash.disk.data) == crash.before
    assert crash.guest.ring.reconnects == 4 * features


def test_the_check_tells_what_each_disk_is_where_none_is_named(capsys):
    crash = Crash("pvdump.run=check")
    crash.guest.disk("xvda", Memory(1 << 20))
    crash.run()
    said = capsys.readouterr().out
    assert "disk xvda, 1 MiB: no dump target" in said
    assert "disk xvdb, 32 MiB: a dump target, ready" in said
    assert "check passed" in said
    assert bytes(crash.disk.data) == crash.before


def test_the_check_fails_where_none_of_the_disks_named_is_a_target(capsys):
    crash = Crash("pvdump.run=check pvdump.disk=xvdb,xvdc", superblock=bytes(512))
    crash.run()
    assert "check failed: none of xvdb, xvdc takes the dump" in capsys.readouterr().out


def test_the_check_fails_on_a_disk_that_is_no_target(capsys):
    crash = Crash("pvdump.run=check pvdump.disk=xvdb", superblock=bytes(512))
    crash.run()
    assert (
        "check failed: xvdb refused, nothing on it was changed: no pvdump"
        in capsys.readouterr().out
    )


class Halted(BaseException):
    """What stands for hw.halt, which CPython's `hw` does not have: there is nothing to halt."""


def test_without_xen_it_says_so_and_halts(capsys, monkeypatch):
    def halt():
        raise Halted

    crash = Crash()
    crash.guest.machine.xen = lambda: 0
    monkeypatch.setattr(hw, "halt", halt, raising=False)
    with pytest.raises(Halted):
        main.main()
    assert "this machine is not Xen" in capsys.readouterr().out
