"""Linux' kexec gives the configuration to the image: both system calls, no Xen."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from lab import packages
from lab.cpio import Cpio
from lab.kernel import Kernel
from pvdump.arm.blob import encode
from pvfw.config import Config, Target
from tools.image import build

pytestmark = pytest.mark.qemu
HERE = Path(__file__).resolve().parent
BUSYBOX, KEXEC = "/usr/bin/busybox", "/usr/sbin/kexec"
INIT = """#!/usr/bin/busybox sh
/usr/bin/busybox mount -t proc proc /proc
/usr/bin/busybox mount -t sysfs sysfs /sys
/usr/sbin/kexec -p {call} /image --initrd=/blob --command-line=pvdump.then=poweroff
echo c > /proc/sysrq-trigger
"""


@cache
def image(folder: Path) -> bytes:
    return build(folder, config=HERE / "config/image.yaml").bin.read_bytes()


@pytest.mark.parametrize(
    ("suite", "call", "memory", "region"),
    [
        ("bookworm", "-s", "512M", "16M"),
        ("bookworm", "-c", "512M", "16M"),
        ("trixie", "-s", "512M", "16M"),
        ("trixie", "-c", "512M", "16M"),
        pytest.param("bookworm", "-s", "6G", "16M,high", id="above 4 GiB"),
        pytest.param("bookworm", "-s", "512M", "2M", id="smallest"),
    ],
)
def test_a_panic_enters_the_image_with_its_configuration(
    suite: str,
    call: str,
    memory: str,
    region: str,
    boot: Callable[..., str],
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    made = Config()
    made.targets, made.then = [Target("xvdb", bytes(range(16)))], "halt"
    made.facts = {f"SIZE({number})": number for number in range(100)}
    root = packages.guest(suite)
    stream = io.BytesIO()
    archive = Cpio(stream)
    archive.device("/dev/console", 5, 1)
    for name in ("/proc", "/sys"):
        archive.folder(name)
    root.put(archive, [BUSYBOX, KEXEC])
    archive.file("/image", image(tmp_path_factory.getbasetemp() / "kexec"))
    archive.file("/blob", encode(made))
    archive.file("/init", INIT.format(call=call), 0o755)
    archive.close()
    (tmp_path / "initramfs").write_bytes(stream.getvalue())
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
