"""The image on the embedded Xen: it is shut down, saved, restored and migrated by its toolstack."""

import re
from pathlib import Path

import pytest
from fixtures.controlled import acknowledged, assert_written
from fixtures.suspended import SERVERS

from pvxen.control import Suspension, ask
from pvxen.guest import EmbeddedGuest
from pvxen.image import EmbeddedImage
from pvxen.sink import Memory
from tools.image import build
from xenpv import abi
from xenpv.loop import SECOND

CONFIG = Path(__file__).resolve().parents[1] / "boot/control/image.yaml"


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    built = build(tmp_path_factory.mktemp("control"), config=CONFIG)
    return EmbeddedImage(built.elf.read_bytes(), built.bin.read_bytes())


class Owner:
    """The owner of a guest with the disk xvdb, who has a list of things to do, one a second."""

    def __init__(self, things, **options):
        self.guest = EmbeddedGuest(door="pvh", region=(0x400000, 0x800000), **options)
        self.guest.disk("xvdb", Memory(2 << 20), latency=1_000_000)
        self.outcomes = []
        self._things = list(things)
        self._suspension = None
        self.guest.xen.clock.after(SECOND, self._next)

    def _next(self):
        if self._suspension is not None and self._suspension.outcome is None:
            self.guest.xen.clock.after(SECOND, self._next)
            return
        if self._suspension is not None:
            self.outcomes.append(self._suspension.outcome)
            self._suspension = None
        thing = self._things.pop(0)
        if callable(thing):
            self._suspension = Suspension(self.guest, thing)
        else:
            ask(self.guest, thing)
        if self._things:
            self.guest.xen.clock.after(SECOND, self._next)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("poweroff", abi.SHUTDOWN_poweroff),
        ("reboot", abi.SHUTDOWN_reboot),
        ("crash", abi.SHUTDOWN_crash),
    ],
)
def test_it_ends_as_asked(image, command, reason):
    owner = Owner([command])
    assert image.run(owner.guest) == reason
    assert_written(owner.guest.disks["xvdb"].sink.data, acknowledged(image.text))


@pytest.mark.parametrize("features", SERVERS)
def test_suspended_12_times_it_goes_on_and_loses_nothing(image, features):
    def migrate(domid):
        # Each host has another time.
        xen.migrate(domid, host_time=(domid % 3 - 1) * 120 * SECOND)

    owner = Owner([], server_features=features)
    xen = owner.guest.xen
    owner._things += [xen.go_on if i % 4 == 3 else migrate for i in range(12)] + ["poweroff"]
    assert image.run(owner.guest) == abi.SHUTDOWN_poweroff
    assert owner.outcomes == ["suspended"] * 12
    assert len(re.findall("^guest: resumed$", image.text, re.MULTILINE)) == 12
    assert_written(owner.guest.disks["xvdb"].sink.data, acknowledged(image.text))
    # What it said after the last one is on the PV console, too.
    assert "guest: the toolstack asks for poweroff: powering off" in image.console
    assert len(re.findall("guest: resumed\r\n", image.console)) == 12
