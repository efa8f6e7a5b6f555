"""The process of root's with a domain of libxl's, and a program in xl's place."""

import json
import os
from pathlib import Path

import pytest
from fixtures.domctl import Domctl

from pvdump.dom0 import guestfiles
from pvdump.dom0.ledger import Ledger
from pvdump.dom0.toolstack import Xl
from pvdump.dom0.verbs import Verbs

UUID = "3f0c1b52-6f61-4b0e-8d2e-0a1b2c3d4e5f"
# Writes down how it is called; `vm-list` has what the test puts there.
XL = """\
#!/bin/sh
echo "$@" >>{folder}/calls
[ "$1" = vm-list ] && cat {folder}/vms
[ "$1" = create ] && cp "$2" {folder}/created
exit $(cat {folder}/code)
"""


class Site:
    """A dom0 with one guest, domain 7, which is down for a soft reset."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.domctl = Domctl(7, UUID, reason=5)
        self.ledger = Ledger(folder / "guests")
        (folder / "xl").write_text(XL.format(folder=folder))
        (folder / "xl").chmod(0o755)
        (folder / "vms").write_text("UUID ID name\n")
        (folder / "code").write_text("0")
        self.configure()

    def configure(self, type: str = "pvh", **more: object) -> None:
        """Write libxl's configuration of the guest."""
        info = {"type": type, "name": "web", "uuid": UUID}
        text = json.dumps({"c_info": info, "on_soft_reset": "preserve", **more})
        (self.folder / f"userdata-d.7.{UUID}.libxl-json").write_text(text + "\0")

    def verbs(self) -> Verbs:
        """The verbs, as a new process has them."""
        xl = Xl([os.fspath(self.folder / "xl")])
        return Verbs(self.domctl, self.ledger, xl, self.folder)  # type: ignore[arg-type]

    def start(self) -> None:
        """Reset it and start its crash kernel, as the daemon asks for."""
        verbs = self.verbs()
        made = verbs.reset(7, UUID)
        if made is not None:
            verbs.go(7, UUID, made["store_port"], made["console_port"])

    def calls(self) -> list[str]:
        """How xl was called."""
        path = self.folder / "calls"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.setattr(guestfiles, "KNOWN", tmp_path / "files.json")
    monkeypatch.setattr("pvdump.dom0.toolstack.PAUSE", 0)
    return Site(tmp_path)
