"""The prompt of pvboot on a real Xen: a guest that is a Python program."""

import re

import pytest
from fixtures.xens import XENS

from tools import image

pytestmark = pytest.mark.xen


@pytest.fixture(scope="module")
def pvboot():
    """The image as `./build.py image` builds it, where the lab's guests look for it."""
    return image.build(image.ROOT / "out", config=image.ROOT / "pvboot.yaml")


def answer(domain, line, pattern):
    """Type a line at the prompt, and wait for the answer. Returns it."""
    domain.type(line)
    return domain.wait_console(re.escape(line) + r"\r?\n(?:.*\n)*?" + pattern).group()


@pytest.mark.parametrize("door", ["pvh", "firmware"])
@pytest.mark.matrix(xen=XENS, indirect=["xen"])
def test_the_prompt_answers(pvboot, xen, guest, target, door):
    disks = [{"vdev": "xvdb", "file": str(target), "backend": "blkback"}]
    kernel = {"pvh": "pvboot-elf", "firmware": "pvboot-fw"}[door]
    line = "pvdump.run=shell"
    text = {"cmdline": line} if door == "pvh" else {"run": f"#pvdump\n{line}\n"}
    domain = xen.create(guest(f"{door}.yaml", kernel=kernel, disks=disks, **text))
    domain.wait_console(r"help\(\) says what there is\.\r?\n>>> ")
    answer(domain, "1+1", r"2\r?\n>>> ")
    answer(domain, 'store.read("name")', rf"b'{domain.guest.name}'\r?\n>>> ")
    answer(domain, "await disk.read(0, 8)", r"b'.*'\r?\n>>> ")
    domain.type("exit()")
    assert domain.wait_end() == "poweroff"
