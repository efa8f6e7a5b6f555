"""NBD servers for the tests of the client."""

import pytest
from blkback.nbdserver import NbdServer

from pvdump.blkback import nbd


@pytest.fixture
def no_rest(monkeypatch):
    """Have the client try a lost server again at once."""
    monkeypatch.setattr(nbd, "REST_SECONDS", 0)


@pytest.fixture
def serve(tmp_path):
    """Gives NbdServers, which are closed at the end."""
    servers = []

    def start(**options):
        servers.append(NbdServer(tmp_path / f"socket{len(servers)}", **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
