"""The whole circle of `./build.py demo --firmware`: pvboot, a panic, a dump, pvboot, a report."""

import pytest
from fixtures.xens import ONE, XENS

from lab.xen import Xen
from tools import firmwaredemo
from tools.progress import NULL

pytestmark = [
    pytest.mark.xen,
    pytest.mark.matrix(place=[], more={"place": (*ONE, XENS[2])}),
]


def test_pvboot_boots_the_guest_that_panicked_and_its_report_says_why(place, built, tmp_path):
    with Xen(*place.split(), restored=True) as xen:
        text = firmwaredemo.run(xen, tmp_path, NULL)
    assert text.count("\nboot by pvboot     Debian GNU/Linux: kernel ") == 3
    assert "sysrq: Trigger a crash" in text
    console = (tmp_path / "console.log").read_text()
    complete = console.index("pvdump: dump complete: ")
    boots = [match.start() for match in firmwaredemo.BOOTED.finditer(console)]
    assert [at < complete for at in boots] == [True, True, False]
