"""Linux's own crash kernel: Debian's kernel once more, with an initramfs that has makedumpfile.

Used by the benchmarks, as the peer of the image. The rule: it gets all that makes it small and
fast and that its users have: one CPU, the few modules it needs, an initramfs packed with zstd as
Debian packs it, few lines on the console, and a disk that is written without a file system.
Source: kdump-tools(5), kdump-config.in (the command line).
"""

from __future__ import annotations

import io
from pathlib import Path

import zstandard

from lab import linux, packages
from lab.cpio import Cpio
from lab.kernel import Kernel
from tools import cache
from tools.progress import NULL, Display

INIT = Path(__file__).parent / "linux" / "kdump"
MAKEDUMPFILE = "/usr/bin/makedumpfile"
KERNEL, RAMDISK = "/kdump/vmlinuz", "/kdump/initrd"  # in the guest
# Linux's banner is a notice, of level 5. Debian has irqpoll too; with it the crash kernel had not
# come to its init in the lab after two minutes.
CMDLINE = "console=hvc0 loglevel=6 reset_devices nr_cpus=1 random.trust_cpu=on"


def files(suite: str, progress: Display = NULL) -> dict[str, str]:
    """Return the `files` that a guest needs to load it.

    Args:
        suite: Debian release of the guest; makedumpfile is always trixie's.
        progress: Shows the steps.

    Returns:
        A dict from the name in the guest to the file of the host.
    """
    root, readers = packages.guest(suite, progress), packages.readers(progress)
    sources = (cache.file_digest(path) for path in (INIT, Path(__file__), Path(linux.__file__)))
    key = cache.digest(root.path, readers.path, *sources)

    def make(folder: Path) -> None:
        stream = io.BytesIO()
        archive = Cpio(stream)
        linux.skeleton(archive, root)
        readers.put(archive, [MAKEDUMPFILE])
        linux.put_modules(archive, root, linux.MODULES)
        archive.file("init", INIT.read_bytes(), 0o755)
        archive.close()
        packed = zstandard.ZstdCompressor(level=19).compress(stream.getvalue())
        (folder / "initrd").write_bytes(packed)

    kept = cache.stamped(cache.folder("lab", suite), "kdump", key, make)
    return {KERNEL: str(Kernel(root).image), RAMDISK: str(kept / "initrd")}


def load(disk: str, ways: tuple[str, ...]) -> str:
    """Return a shell line that loads it.

    Args:
        disk: The disk to write, such as "xvdb".
        ways: How to write the dump, one after the other, each from the disk's start: "l", "c" or
            "z", which is makedumpfile's option for the compression, or "dd".
    """
    options = f"{CMDLINE} kdump.disk={disk} kdump.ways={','.join(ways)}"
    return f'kexec -p -s {KERNEL} --initrd={RAMDISK} --command-line="{options}"'
