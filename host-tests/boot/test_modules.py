"""The configuration comes in as a module, and the image's Python reads it as CPython does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from pvdump.arm.blob import encode
from pvfw.config import Config, Target
from tools.image import Image, build

pytestmark = pytest.mark.qemu
HERE = Path(__file__).resolve().parent


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    return build(tmp_path_factory.mktemp("config"), config=HERE / "config/image.yaml")


def configuration() -> Config:
    made = Config()
    made.release = "6.1.0-56-cloud-amd64"
    made.targets = [Target("xvdc", bytes(range(16))), Target("xvdb1", bytes(16))]
    made.level = 31
    made.algorithm, made.compression = "zstd", -1
    made.then = "halt"
    made.facts = {"SIZE(page)": 64, "LEAST": -(1 << 63), "MOST": (1 << 63) - 1}
    made.recipients = [bytes(range(32))]
    made.log_clear = True
    made.nonce = bytes(range(100, 132))
    return made


def read(text: str) -> dict[str, str]:
    return {line.partition(" ")[0]: line.partition(" ")[2] for line in text.splitlines()}


EXPECTED = {
    "names": "['xvdc', 'xvdb1']",
    "then": "halt",
    "release": "6.1.0-56-cloud-amd64",
    "targets": str([("xvdc", bytes(range(16))), ("xvdb1", bytes(16))]),
    "level": "31",
    "compression": "zstd -1",
    "facts": str([("LEAST", -(1 << 63)), ("MOST", (1 << 63) - 1), ("SIZE(page)", 64)]),
    "recipients": str([bytes(range(32))]),
    "log": "True",
    "nonce": str(bytes(range(100, 132))),
    "problems": "[]",
    "end": "",
}


def test_a_configuration_is_read(image: Image, boot: Callable[..., str], tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(encode(configuration()))
    assert read(boot(image.elf, "-m", "128M", "-initrd", str(blob), until="end")) == EXPECTED


def test_a_damaged_one_is_told(image: Image, boot: Callable[..., str], tmp_path: Path) -> None:
    blob = tmp_path / "blob"
    blob.write_bytes(encode(configuration())[:-1])
    found = read(boot(image.elf, "-m", "128M", "-initrd", str(blob), until="end"))
    assert found["names"] == "[]"
    assert "the configuration is damaged: it says" in found["problems"]
