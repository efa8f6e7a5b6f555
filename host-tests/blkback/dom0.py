"""A dom0 with `pvdump blkback run` in it, for the tests of the backend on real Xen."""

import json

import pytest

from lab import python

STATUS = "/run/blkback"
CMDLINE = "console=hvc0 crashkernel=16M random.trust_cpu=on"
WAIT = "until [ -b /dev/xvdb ]; do usleep 50000; done\n"
XENS = ("bookworm oxenstored", "trixie xenstored")
on_each = pytest.mark.parametrize("xen", XENS, indirect=True)
on_one = pytest.mark.parametrize("xen", XENS[:1], indirect=True)


class Site:
    """A dom0 with `pvdump blkback run` in it."""

    def __init__(self, xen):
        self.xen = xen
        python.put(xen)
        self.start()

    def start(self):
        self.xen.sh(
            f"pvdump blkback run --status {STATUS} >>/job/log/blkback 2>&1 & echo $! >/run/pid\n"
            f"until [ -S {STATUS} ]; do usleep 50000; done"
        )

    def stop(self, signal="TERM"):
        self.xen.sh(
            f"kill -{signal} $(cat /run/pid); rm -f {STATUS}\n"
            "exe=/proc/$(cat /run/pid)/exe\n"  # which a zombie has not
            "while [ -e $exe ]; do usleep 50000; done"
        )

    def attach(self, domain, sink, *options, vdev="xvdb"):
        self.xen.sh(f"pvdump blkback attach {domain.domid} {vdev} '{sink}' {' '.join(options)}")

    def detach(self, domain, *options, vdev="xvdb"):
        self.xen.sh(f"pvdump blkback detach {domain.domid} {vdev} {' '.join(options)}")

    def disks(self):
        return json.loads(self.xen.sh(f"pvdump blkback show --json {STATUS}"))["disks"]

    def create(self, guest, *sinks, options=()):
        """Start a guest with disks of ours, xvdb and on, from its first moment on."""
        domain = self.xen.create(guest, paused=True)
        for letter, sink in zip("bcdefghijklmnop", sinks, strict=False):
            self.attach(domain, sink, *options, vdev=f"xvd{letter}")
        self.xen.sh(f"xl unpause {domain.domid}")
        return domain

    def without(self, domain):
        """Wait until nothing of a domain's disks is left in xenstore."""
        self.xen.sh(
            f"node=/local/domain/0/backend/pvdump_vbd/{domain.domid}\n"
            "while xenstore-exists $node; do usleep 50000; done"
        )


def linux_guest(guest, run, **fields):
    """A Debian guest (PVH) that waits for its xvdb and runs lines."""
    options = {"type": "pvh", "vcpus": 1, "memory": 256, "disks": [], "files": {}, **fields}
    options.setdefault("extra", {"tsc_mode": "native"})  # or Xen traps each look at the clock
    return guest("linux-crash.yaml", run=WAIT + run, cmdline=CMDLINE, **options)
