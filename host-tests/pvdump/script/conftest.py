"""pvboot, which is asked what it takes."""

import pytest
from fixtures.typist import Typist, image_of

from pvdump.script import text
from tools.image import build
from tools.imageconfig import ROOT

AT = 0x1000000


@pytest.fixture(scope="session")
def ask(tmp_path_factory):
    """Runs a script in the image, with modules by their paths. Returns what it printed."""
    image = image_of(build(tmp_path_factory.mktemp("image"), config=ROOT / "pvboot.yaml"))

    def of(script, modules=None):
        whole = text.compose(script, modules or {})
        line = b"pvdump.run=script"
        typist = Typist(image, [], cmdline=line, modules=((AT, len(whole)),))
        typist.guest.machine.ram[AT : AT + len(whole)] = whole
        return typist.run().said

    return of
