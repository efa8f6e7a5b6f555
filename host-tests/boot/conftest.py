"""Images under QEMU without Xen, for the tests of boot/: build, start, read port 0xE9.

The rule: a guest never ends by itself (hw.halt), so a run ends when the line that the test waits
for is there; a timeout is only for a guest that hangs, and generous.
"""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from fixtures.signing import Signer

from tools.image import Image, build

HERE = Path(__file__).resolve().parent
TIMEOUT = 120.0  # seconds

Boot = Callable[..., str]


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """The image as image.yaml has it."""
    return build(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """An image that runs doors/doors.py."""
    return build(tmp_path_factory.mktemp("doors"), config=HERE / "doors/image.yaml")


@pytest.fixture(scope="session")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    """Signs images for Secure Boot."""
    return Signer(tmp_path_factory.mktemp("signer"))


@pytest.fixture(scope="session")
def loader(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The test loader for the 64-bit door, compiled."""
    output = tmp_path_factory.mktemp("loader") / "loader.elf"
    flags = "-m64 -O1 -ffreestanding -nostdlib -static -fno-pic -no-pie -mno-red-zone".split()
    flags += "-mgeneral-regs-only -fno-stack-protector -fcf-protection=none -Wall -Wextra".split()
    flags += ["-Werror", "-Wl,-Ttext=0x1000000,-eloader_entry,-n,--no-warn-rwx-segments"]
    sources = [str(HERE / "loader" / name) for name in ("entry.S", "loader.c")]
    command = ["gcc", *flags, f"-I{HERE.parent.parent}", "-o", str(output), *sources]
    subprocess.run(command, check=True)
    return output


@pytest.fixture(scope="session")
def boot() -> Boot:
    return run


@pytest.fixture
def answers(boot: Boot, tmp_path: Path) -> Callable[[str], dict[str, str]]:
    """Gives the lines NAME TEXT that a folder's image prints, by name, up to the line "end"."""

    def of(folder: str) -> dict[str, str]:
        image = build(tmp_path, config=HERE / folder / "image.yaml")
        said = boot(image.elf, "-m", "128M", until="end")
        return dict(line.split(" ", 1) for line in said.splitlines())

    return of


def run(kernel: Path, *options: str, until: str, timeout: float = TIMEOUT) -> str:
    """Boot `kernel`; what it wrote on port 0xE9, up to a line that begins with `until`."""
    command = ["qemu-system-x86_64", "-accel", "tcg", "-nodefaults", "-no-reboot"]
    command += ["-display", "none", "-debugcon", "stdio", "-kernel", str(kernel), *options]
    lines: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as guest:
        timer = threading.Timer(timeout, guest.kill)
        timer.start()
        assert guest.stdout is not None
        for raw in guest.stdout:
            lines.append(raw.decode(errors="replace").rstrip())
            if lines[-1].startswith(until):
                break
        timer.cancel()
        guest.kill()
    text = "\n".join(lines)
    assert lines, f"no output, expected a line {until!r}"
    assert lines[-1].startswith(until), f"no line {until!r} in:\n{text}"
    return text
