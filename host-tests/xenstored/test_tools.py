"""Debian's xenstore-utils, unmodified, against the server: they say what they say on C xenstored.

tools.out is what C xenstored 4.17 and 4.20 say; host-tests/lab/test_xenstore_tools.py holds it to
that.
"""

import threading

import pytest
from xenstored import tools

from pvdump.xenstored.unix import UnixTransport


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_they_work_as_on_c_xenstored(tmp_path, suite):
    with UnixTransport(tools.server(), tmp_path / "socket") as unix:
        thread = threading.Thread(target=unix.run)
        thread.start()
        try:
            said = tools.run(tmp_path / "socket", tmp_path, suite)
        finally:
            unix.stop()
            thread.join()
    assert said.splitlines() == tools.EXPECTED.read_text().splitlines()
