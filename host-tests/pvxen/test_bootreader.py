"""The image reads what a disk says is to be booted, and finds what CPython finds."""

import importlib.util
import re
from pathlib import Path

import pytest
from fixtures.bootdisks import DEBIAN_12, DEBIAN_13, MIB, ext, fat, gpt, links, mbr, sample
from fixtures.bootfiles import NEW, OLD, UUID, grub_mkconfig, grubenv, kernels, linux, uki

from pvfw.boot.volumes import ESP, XBOOTLDR
from pvxen.guest import EmbeddedGuest
from pvxen.image import EmbeddedImage
from pvxen.sink import Memory
from tools.image import build
from xenpv import abi
from xenpv.guest import Guest

HERE = Path(__file__).resolve().parent / "bootreader"
LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
SIZE = 64 * MIB
HEAP = 512 << 10


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    built = build(tmp_path_factory.mktemp("image"), config=HERE / "image.yaml")
    return EmbeddedImage(built.elf.read_bytes(), built.bin.read_bytes())


def guest(data, ram=None):
    made = EmbeddedGuest(SIZE, ram=ram, seed=1, region=(0x400000, 0xC00000))
    made.disk("xvda", Memory(data))
    return made


def in_image(image, data):
    assert image.run(guest(data, image.ram)) == abi.SHUTDOWN_poweroff
    return re.sub(r"\r", "", image.text)


def in_cpython(data, capsys):
    spec = importlib.util.spec_from_file_location("bootguest", HERE / "bootguest.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    guest(data)
    drivers = Guest()
    capsys.readouterr()
    drivers.loop.run(module.work(drivers))
    return capsys.readouterr().out


def debian(folder):
    config = grub_mkconfig(folder)
    files = {**kernels(OLD, NEW), "boot/grub/grub.cfg": config, **sample(), **links()}
    files["boot/grub/grubenv"] = grubenv(saved_entry="1>2", next_entry="0")
    files[f"boot/vmlinuz-{OLD}"] = linux("bookworm").read_bytes()[: 3 * MIB]
    root = ext(folder, files, "-b", "4096", "-O", DEBIAN_12, "-U", UUID)
    esp = fat(folder, {"EFI/debian/grub.cfg": b"x"}, "-F", "16", size=32 * MIB)
    return gpt(folder, [(LINUX, root), (ESP[0], esp)])


def fedora(folder):
    names = ("6.8.5-301.fc40.x86_64", "6.10.2-200.fc40.x86_64")
    files = kernels(*names, folder=".")
    for name in names:
        files[f"loader/entries/4f3a1c-{name}.conf"] = (
            f"title Fedora Linux ({name}) 40\nversion {name}\nlinux /vmlinuz-{name}\n"
            f"initrd /initrd.img-{name} $tuned_initrd\noptions $kernelopts\ngrub_class fedora\n"
        ).encode()
    files["grub2/grubenv"] = grubenv(saved_entry="4f3a1c-" + names[0], kernelopts="root=UUID=1 ro")
    files["grub2/grub.cfg"] = b"load_env\nblscfg\n"
    return mbr(folder, [("83", ext(folder, files, "-b", "1024", "-O", DEBIAN_13))])


def with_uki(folder):
    (folder / "initrd").write_bytes(b"initrd" * 99999)
    made = uki(folder, linux("bookworm"), f"--initrd={folder / 'initrd'}", "--cmdline=root=/dev/x")
    files = {f"EFI/Linux/a long name {i}.efi": made for i in (1, 2)}
    return gpt(folder, [(XBOOTLDR[0], fat(folder, files, "-F", "32", "-s", "1"))])


def extlinux(folder):
    text = b"timeout 50\nlabel a\nlinux ../vmlinuz-1\ninitrd /boot/initrd.img-1\nappend root=x\n"
    files = {**kernels("1"), "boot/extlinux/extlinux.conf": text}
    return ext(folder, files, "-t", "ext2", "-b", "1024", size=8 * MIB)


def deep(folder):
    """A configuration that nests as deep as may be, and one line too deep."""
    inner = "if true; then " * 7 + "linux /boot/vmlinuz-1 deep; " + "fi; " * 7
    text = "submenu s { " * 4 + f"menuentry m {{ {inner} }} " + "} " * 4
    text += "\nmenuentry over { " + "if true; then " * 20 + "fi; " * 20 + "}\n"
    text = "menuentry ok { linux /boot/vmlinuz-1 ok; }\n" + text
    files = {**kernels("1"), "boot/grub/grub.cfg": text.encode()}
    return ext(folder, files, "-t", "ext4", size=8 * MIB)


def large(folder):
    """A configuration of the largest size, with as many entries and variables as may be."""
    text = "".join(f"set v{i}={'x' * 90}\n" for i in range(230))
    text += "".join(
        f"menuentry 'entry {i}' {{ linux /boot/vmlinuz-1 {'y' * 900}; }}\n" for i in range(100)
    )
    text += "#" * (60000 - len(text)) if len(text) < 60000 else ""
    files = {**kernels("1"), "boot/grub/grub.cfg": text.encode()}
    return ext(folder, files, "-t", "ext4", size=8 * MIB)


@pytest.mark.parametrize("make", [debian, fedora, with_uki, extlinux, deep, large])
def test_the_image_finds_and_reads_what_cpython_does(make, image, tmp_path, capsys):
    data = make(tmp_path)
    expected = in_cpython(data, capsys)
    found = in_image(image, data)
    assert "\nend\n" in found, found
    lines = [line for line in found.splitlines() if not line.startswith("heap ")]
    assert lines == [line for line in expected.splitlines() if not line.startswith("heap ")]
    (heap,) = re.findall(r"^heap (\d+)$", found, re.MULTILINE)
    assert int(heap) < HEAP // 2
    assert [line for line in lines if line.startswith("entry default ")]
    with capsys.disabled():
        print(f"\n{make.__name__}: heap {heap}, {lines[-2]}")
