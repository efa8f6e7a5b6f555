"""Linux' kexec gives the configuration to the image: both system calls, no Xen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.panickinglinux import initramfs
from fixtures.signing import Signer

from lab import packages
from lab.kernel import Kernel
from pvdump.arm.blob import encode
from pvfw.config import Config, Target
from tools.image import build

pytestmark = pytest.mark.qemu
HERE = Path(__file__).resolve().parent


@pytest.mark.parametrize(
    ("suite", "call", "memory", "region", "is_signed"),
    [
        ("bookworm", "-s", "512M", "4M", False),
        ("bookworm", "-c", "512M", "4M", True),
        ("trixie", "-s", "512M", "4M", True),
        ("trixie", "-c", "512M", "4M", False),
        pytest.param("bookworm", "-s", "6G", "16M,high", False, id="above 4 GiB"),
        pytest.param("bookworm", "-s", "512M", "2M", True, id="smallest"),
    ],
)
def test_a_panic_enters_the_image_with_its_configuration(
    suite: str,
    call: str,
    memory: str,
    region: str,
    is_signed: bool,
    signer: Signer,
    boot: Callable[..., str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = Config()
    made.targets, made.then = [Target("xvdb", bytes(range(16)))], "halt"
    made.facts = {f"SIZE({number})": number for number in range(100)}
    root = packages.guest(suite)
    flat = build(tmp_path_factory.getbasetemp() / "kexec", config=HERE / "config/image.yaml").bin
    if is_signed:
        signer.sign(flat, tmp_path / "signed")
        flat = tmp_path / "signed"
    initramfs(root, tmp_path / "initramfs", flat.read_bytes(), encode(made), call)
    text = boot(
        Kernel(root).image,
        # With other CPUs that QEMU plays, 6.12 dies at boot now and then.
        *("-cpu", "Nehalem", "-m", memory, "-initrd", str(tmp_path / "initramfs")),
        *("-append", f"quiet crashkernel={region} panic=-1"),
        until="end",
    )
    found = {line.partition(" ")[0]: line.partition(" ")[2] for line in text.splitlines()}
    assert found["problems"] == "[]"
    assert found["names"] == "['xvdb']"
    assert found["then"] == "poweroff"
    assert found["facts"] == str(sorted(made.facts.items()))
