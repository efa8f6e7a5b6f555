"""A real Debian guest boots through pvboot with one CPU and four, also above 4 GiB.

The machine that Xen runs on has to be large enough, and boots.
"""

import pytest
from fixtures import pvbooted
from fixtures.xens import ONE

from lab.xen import Xen
from tools import image

MACHINE = 8192  # MiB; Xen and dom0 take 1200
# CPUs and MiB. With one CPU and 512 MiB it boots in test_boot_installed.
SIZES = [(4, 512), (1, 6144), (4, 6144)]

pytestmark = [
    pytest.mark.xen,
    pytest.mark.matrix(
        large=[],
        door=list(pvbooted.DOORS),
        size=SIZES,
        more={"large": ONE},
        together=True,
        indirect=["large"],
    ),
]


@pytest.fixture(scope="module")
def large(request):
    """A Xen with room for the largest guest."""
    image.build(image.ROOT / "out", config=image.ROOT / "pvboot.yaml")
    with Xen(*request.param.split(), memory=MACHINE) as xen:
        yield xen


def test_debian_has_all_of_it(large, door, size):
    vcpus, memory = size
    guest, _ = pvbooted.boot(large, door, vcpus=vcpus, memory=memory)
    assert guest.run("nproc").output == f"{vcpus}\n"
    iomem = guest.run("grep ' System RAM$' /proc/iomem").output
    ranges = [tuple(int(n, 16) for n in line.split()[0].split("-")) for line in iomem.splitlines()]
    assert sum(end + 1 - begin for begin, end in ranges) >> 20 in range(memory - 16, memory + 1)
    assert (ranges[-1][1] >= 4 << 30) == (memory > 4096), iomem
    # Linux takes memory above 4 GiB first.
    guest.run(
        "dd if=/dev/urandom of=/dev/shm/one bs=1M count=64 && cp /dev/shm/one /dev/shm/two\n"
        "cmp /dev/shm/one /dev/shm/two"
    )
    guest.destroy()
