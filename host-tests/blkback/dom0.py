"""A dom0 with `pvdump blkback run` in it, for the tests of the backend on real Xen."""

import json

from lab import linux

STATUS = "/run/blkback"
# How the backend is started with each command; its process's number is then in /run/pid.
START = {
    "pvdump": "pvdump blkback run {} & echo $! >/run/pid\n",
    "lab-pvdump": "rm -f /run/pid; LAB_PIDFILE=/run/pid lab-pvdump blkback run {} &\n",
}
WAIT = linux.wait_disk("xvdb") + "\n"


class Site:
    """A dom0 with `pvdump blkback run` in it.

    xen: its dom0 has pvdump. command: "pvdump", or the same by a fork, which starts at once.
    """

    def __init__(self, xen, command="lab-pvdump"):
        self.xen, self.command = xen, command
        self.start()

    def start(self):
        options = f"--status {STATUS} >>/job/log/blkback 2>&1"
        self.xen.sh(
            f"{START[self.command].format(options)}"
            f"until [ -S {STATUS} ] && [ -s /run/pid ]; do usleep 20000; done"
        )

    def stop(self, signal="TERM"):
        self.xen.sh(
            f"kill -{signal} $(cat /run/pid); rm -f {STATUS}\n"
            "exe=/proc/$(cat /run/pid)/exe\n"  # which a zombie has not
            "while [ -e $exe ]; do usleep 50000; done"
        )

    def attach(self, domain, sink, *options, vdev="xvdb"):
        self.xen.sh(
            f"{self.command} blkback attach {domain.domid} {vdev} '{sink}' {' '.join(options)}"
        )

    def detach(self, domain, *options, vdev="xvdb"):
        self.xen.sh(f"{self.command} blkback detach {domain.domid} {vdev} {' '.join(options)}")

    def disks(self):
        return json.loads(self.xen.sh(f"{self.command} blkback show --json {STATUS}"))["disks"]

    def give(self, domain, path, *options):
        """Give a guest at its prompt a file of the host as its xvdb."""
        domain.files["xvdb"] = path
        self.attach(domain, self.xen.attach(path), *options)

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
