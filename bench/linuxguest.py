"""A Linux guest that runs loads on its disks and reports their speed.

Used by the benchmarks of block devices, for the front end's peer and as everybody's front end on
the backends. It stays up between two loads, so that what is compared can take turns. The rule: a
load is direct, so the guest's page cache has no part in it, and a write's time ends with a flush.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from lab.guest import Guest
from lab.xen import Xen
from tools import Trouble

FIO = "/usr/bin/fio"
CREATE_SECONDS = 300  # fio comes with 80 MB of libraries
# Under emulation Xen would else trap each look at the clock, of which Linux has many in a request.
NATIVE = {"tsc_mode": "native"}
BOOT_SECONDS = 180
LOAD_SECONDS = 120
# A line is a load; what it says is between its own echo and the next "bench: did".
INIT = """\
stty -echo </dev/hvc0
exec 6</dev/hvc0
until [ -b /dev/{last} ]; do usleep 50000; done
echo "bench: did 0"
done=0
while read -r line <&6; do
    eval "$line"
    done=$((done + 1))
    echo "bench: did $done"
done
"""
# Of fio's terse line: KiB and ms of the reads, then of the writes.
RESULT = "awk -F';' '{print \"bench: fio\", $6 + $47, $9 + $50}'"


@dataclass(frozen=True)
class Load:
    """A load on a disk.

    op: write, read, randwrite or randread; block: KiB; depth: requests of the program.
    """

    name: str
    op: str
    block: int
    depth: int

    def line(self, vdev: str, seconds: float) -> str:
        """Return the guest's shell command that runs the load for so many seconds."""
        return (
            f"fio --name=load --filename=/dev/{vdev} --direct=1 --end_fsync=1 --rw={self.op} "
            f"--bs={self.block}k --iodepth={self.depth} --ioengine=libaio --thread "
            f"--time_based --runtime={seconds:g} --norandommap --output-format=terse | {RESULT}"
        )


@dataclass
class Done:
    """The result of one load: MiB, and the seconds it took."""

    mib: float
    took: float

    @property
    def speed(self) -> float:
        """MiB/s."""
        return self.mib / self.took


class LinuxGuest:
    """A Debian guest that runs loads with fio.

    Args:
        disks: as in the lab's YAML.
        last: the vdev of the disk that appears last.
    """

    def __init__(self, xen: Xen, name: str, disks: list[dict[str, Any]], last: str) -> None:
        guest = Guest.parse(
            {
                "name": name,
                "type": "pvh",
                "kernel": "debian",
                "memory": 384,
                "cmdline": "console=hvc0 random.trust_cpu=on",
                "disks": disks,
                "programs": [FIO],
                "extra": NATIVE,
                "run": INIT.format(last=last),
            }
        )
        self._loads = 0
        self.domain = xen.create(guest, CREATE_SECONDS)

    def wait(self) -> None:
        """Wait until all its disks are there."""
        self.domain.wait_console(r"^bench: did 0\s*$", BOOT_SECONDS)

    def run(self, line: str) -> str:
        """Run a line in the guest's shell. Returns what it printed."""
        self._loads += 1
        self.domain.type(line)
        pattern = rf"^bench: did {self._loads - 1}\s*\n((?:.*\n)*?)bench: did {self._loads}\s*$"
        return self.domain.wait_console(pattern, LOAD_SECONDS)[1]

    def ran(self) -> float:
        """Return the seconds that a domain's vCPUs have run."""
        return ran(self.domain.xen, self.domain.domid)

    def load(self, load: Load, vdev: str, seconds: float) -> Done:
        """Load a disk."""
        said = self.run(load.line(vdev, seconds))
        found = re.search(r"^bench: fio (\d+) (\d+)\s*$", said, re.MULTILINE)
        if found is None or int(found[2]) == 0:
            raise Trouble(f"{load.name} of {vdev}: fio did not end as it should:\n{said}")
        return Done(int(found[1]) / 1024, int(found[2]) / 1000)

    def dd(self, op: str, vdev: str, mib: int) -> Done:
        """Stream so many MiB by `dd bs=1M`."""
        how = f"if=/dev/zero of=/dev/{vdev} oflag=direct conv=fsync"
        if op == "read":
            how = f"if=/dev/{vdev} of=/dev/null iflag=direct"
        now = "$(cut -d' ' -f1 /proc/uptime)"
        dd = f"dd {how} bs=1M count={mib} 2>/dev/null"
        said = self.run(f"from={now}; {dd} && echo bench: dd $from {now}")
        found = re.search(r"^bench: dd ([\d.]+) ([\d.]+)\s*$", said, re.MULTILINE)
        if found is None:
            raise Trouble(f"dd {op} of {vdev} did not end as it should:\n{said}")
        return Done(mib, float(found[2]) - float(found[1]))


def ran(xen: Xen, domid: int) -> float:
    """Seconds that a domain's vCPUs have run."""
    return int(xen.sh(f"lab-domain time {domid}")) / 1e9
