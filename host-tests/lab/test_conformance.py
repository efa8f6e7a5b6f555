"""The conformance suite in a PVH guest on a real Xen, against Xen's own xenstore servers."""

import re
from pathlib import Path

import pytest
from conformance.deviations import expected
from conformance.suite import stage
from conformance.suite.all import GUEST

from lab.guest import Guest
from tools import image

pytestmark = pytest.mark.xen

CONFIG = Path(__file__).resolve().parents[1] / "conformance/image.yaml"
XEN = {"bookworm": "4.17", "trixie": "4.20"}


def stage_script(domid):
    """What domain 0 does before the guest runs: see conformance/suite/stage.py."""
    top = f"/local/domain/{domid}/{stage.TOP}"
    places = [(f"{top}/{name}".rstrip("/"), value, perms) for name, value, perms in stage.NODES]
    lines = [f"xenstore-write {path} '{value}' || exit 1" for path, value, _ in places]
    names = [f"{top}/many/{name} ''" for name in stage.many()]
    lines += [f"xenstore-write {' '.join(names[i : i + 50])}" for i in range(0, len(names), 50)]
    lines += [
        f"xenstore-chmod {path} {perms.replace('%d', str(domid))}" for path, _, perms in places
    ]
    lines.append(f"xenstore-chmod {top}/many n0 r{domid}")
    return "\n".join(lines)


@pytest.fixture(scope="module")
def seen(xen, tmp_path_factory):
    """What each case showed."""
    built = image.build(tmp_path_factory.mktemp("image"), config=CONFIG)
    guest = Guest.parse({"name": "conf", "type": "pvh", "kernel": str(built.elf), "memory": 32})
    domain = xen.create(guest, paused=True)
    xen.sh(stage_script(domain.domid))
    xen.sh("xl unpause conf")
    domain.wait_console(r"^conformance done \d+$")
    return dict(re.findall(r"^case (\w+): (.*?)\r?$", domain.console(), re.MULTILINE))


def test_the_server_shows_what_is_expected_or_a_deviation_with_a_reason(xen, seen):
    assert seen == expected(f"{xen.xenstored} {XEN[xen.suite]}", GUEST)
