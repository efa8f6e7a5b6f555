"""A kernel under lockdown, as Secure Boot makes it, takes the image that `pvdump sign` signed."""

import io
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures import secureboot
from fixtures.panickinglinux import BUSYBOX, KEXEC
from fixtures.signing import Signer

from lab import packages
from lab.cpio import Cpio
from lab.kernel import Kernel
from pvdump import cli
from tools.image import build

pytestmark = pytest.mark.qemu
HERE = Path(__file__).resolve().parent
INIT = """#!/usr/bin/busybox sh
/usr/bin/busybox mount -t proc proc /proc
/usr/bin/busybox mount -t sysfs sysfs /sys
/usr/bin/busybox mount -t securityfs securityfs /sys/kernel/security
echo test: lockdown $(/usr/bin/busybox cat /sys/kernel/security/lockdown)
for image in "-s /unsigned" "-s /changed" "-c /signed" "-s /signed"; do
    /usr/sbin/kexec -p $image --command-line=pvdump.then=poweroff
    echo test: $image $(/usr/bin/busybox cat /sys/kernel/kexec_crash_loaded)
done
echo c > /proc/sysrq-trigger
"""


@pytest.fixture
def signed(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    signer: Signer,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """The image that prints its configuration, signed by `pvdump sign`."""
    image = tmp_path / "pvdump.bin"
    config = HERE / "config/image.yaml"
    shutil.copy(build(tmp_path_factory.getbasetemp() / "kexec", config=config).bin, image)
    signer.install(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    out = tmp_path / "signed"
    keys = ["--key", str(signer.key), "--cert", str(signer.certificate)]
    assert cli.main(["sign", *keys, "--out", str(out), str(image)]) == 0
    return out


def initramfs(root: packages.Root, signed: Path) -> bytes:
    stream = io.BytesIO()
    archive = Cpio(stream)
    archive.device("/dev/console", 5, 1)
    for name in ("/proc", "/sys"):
        archive.folder(name)
    root.put(archive, [BUSYBOX, KEXEC])
    raw = bytearray(signed.read_bytes())
    archive.file("/signed", bytes(raw))
    raw[5000] ^= 1
    archive.file("/changed", bytes(raw))
    archive.file("/unsigned", signed.with_name("pvdump.bin").read_bytes())
    archive.file("/init", INIT, 0o755)
    archive.close()
    return stream.getvalue()


def test_under_lockdown_the_signed_image_alone_is_loaded_and_runs(
    signed: Path, signer: Signer, boot: Callable[..., str], tmp_path: Path
) -> None:
    root = packages.guest("trixie")
    kernel, console = tmp_path / "kernel", tmp_path / "console"
    signer.sign(Kernel(root).image, kernel)
    (tmp_path / "initramfs").write_bytes(initramfs(root, signed))
    try:
        boot(
            kernel,
            *secureboot.options(tmp_path, signer),
            *("-cpu", "Nehalem", "-m", "1G", "-initrd", str(tmp_path / "initramfs")),
            *("-append", "console=ttyS0 quiet crashkernel=8M panic=-1"),
            *("-serial", f"file:{console}"),
            until="end",
            timeout=300,  # s; the firmware is emulated too
        )
    finally:
        print(console.read_text(errors="replace"))
    said = console.read_text(errors="replace")
    assert "test: lockdown none [integrity] confidentiality" in said
    for line in ("-s /unsigned 0", "-s /changed 0", "-c /signed 0", "-s /signed 1"):
        assert f"test: {line}" in said
