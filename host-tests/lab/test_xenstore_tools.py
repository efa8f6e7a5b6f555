"""Debian's xenstore tools: what they say on C xenstored is what they say on our server."""

import pytest
from xenstored.tools import EXPECTED, SCRIPT

pytestmark = pytest.mark.xen


@pytest.mark.parametrize(
    "xen", ["bookworm xenstored", "trixie xenstored"], indirect=True, ids=["4.17", "4.20"]
)
def test_c_xenstored_says_what_our_server_is_held_to(xen):
    (xen.job / SCRIPT.name).write_text(SCRIPT.read_text())
    said = xen.sh(f"mkdir -p /tmp; sh /job/{SCRIPT.name}")
    assert said.splitlines() == EXPECTED.read_text().splitlines()
