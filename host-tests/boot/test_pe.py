"""pvdump.bin as a PE file: what a signer, a firmware and Linux' kexec_file_load look at."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
import unicorn
from fixtures.signing import Signer
from unicorn import x86_const as x86

from tools.image import Image

SETUP = 4096
SETUP_HEADER = 0x1F1  # of the bzImage: the PE header must end before it
EFI_UNSUPPORTED = 1 << 63 | 3
CERTIFICATE = 4  # the directory
EXECUTE, WRITE = 0x20000000, 0x80000000

OPTIONAL = (
    "magic linker code data bss entry base_of_code image_base section_alignment file_alignment"
    " system_version image_version subsystem_version reserved image_size headers_size checksum"
    " subsystem characteristics stack stack_committed heap heap_committed flags directories"
).split()
SECTION = "name size address raw_size raw_offset relocations lines counts flags".split()


class Pe:
    """The fields of a PE file. Source: Microsoft's PE Format."""

    def __init__(self, data: bytes):
        (at,) = struct.unpack_from("<I", data, 0x3C)
        self.signatures = data[:2], data[at : at + 4]
        coff = struct.unpack_from("<HHIIIHH", data, at + 4)
        self.machine, self.count, _, self.symbols, _, size, self.kind = coff
        at += 24
        form = "<HHIIIIIQIIIIIIIIIHHQQQQII"
        self.header = dict(zip(OPTIONAL, struct.unpack_from(form, data, at), strict=True))
        directories = at + struct.calcsize(form)
        self.directories = [
            struct.unpack_from("<II", data, directories + 8 * i)
            for i in range(self.header["directories"])
        ]
        assert directories + 8 * len(self.directories) == at + size
        fields = struct.unpack_from("<8sIIIIIIII", data, at + size)
        self.section = dict(zip(SECTION, fields, strict=True))
        self.end = at + size + 40 * self.count


@pytest.fixture(scope="module")
def signed(image: Image, signer: Signer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("signed") / "pvdump.bin"
    signer.sign(image.bin, out)
    return out


def test_the_pe_header_ends_before_the_setup_header(image: Image) -> None:
    pe = Pe(image.bin.read_bytes())
    assert pe.signatures == (b"MZ", b"PE\0\0")
    assert pe.end <= SETUP_HEADER


def test_it_is_a_64_bit_efi_application(image: Image) -> None:
    pe = Pe(image.bin.read_bytes())
    assert (pe.machine, pe.header["magic"], pe.header["subsystem"]) == (0x8664, 0x20B, 10)


def test_headers_and_section_cover_the_file_and_lie_in_it_as_in_memory(image: Image) -> None:
    data = image.bin.read_bytes()
    pe = Pe(data)
    assert pe.count == 1
    assert pe.section["name"] == b".text\0\0\0"
    assert pe.header["headers_size"] == pe.section["raw_offset"] == SETUP
    assert pe.section["address"] == pe.section["raw_offset"]
    assert pe.section["raw_offset"] + pe.section["raw_size"] == len(data)
    assert pe.section["size"] == pe.section["raw_size"]


def test_sizes_are_aligned_as_the_header_says(image: Image) -> None:
    pe = Pe(image.bin.read_bytes())
    file, section = pe.header["file_alignment"], pe.header["section_alignment"]
    assert pe.header["headers_size"] % file == pe.section["raw_size"] % file == 0
    assert pe.section["address"] % section == pe.header["image_size"] % section == 0
    end = pe.section["address"] + pe.section["size"]
    assert end <= pe.header["image_size"] < end + section


def test_the_section_is_executable_and_not_writable(image: Image) -> None:
    assert Pe(image.bin.read_bytes()).section["flags"] & (EXECUTE | WRITE) == EXECUTE


def test_there_is_room_for_a_certificate_and_none_yet(image: Image) -> None:
    pe = Pe(image.bin.read_bytes())
    assert len(pe.directories) == 6
    assert set(pe.directories) == {(0, 0)}


def test_the_efi_entry_returns_unsupported(image: Image) -> None:
    data = image.bin.read_bytes()
    pe = Pe(data)
    base, stack, back = 0x10000000, 0x20000000, 0x30000000
    uc = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)
    uc.mem_map(base, pe.header["image_size"])
    uc.mem_write(base, data)
    uc.mem_map(stack, 4096)
    uc.mem_map(back, 4096)
    uc.mem_write(stack + 4088, struct.pack("<Q", back))
    uc.reg_write(x86.UC_X86_REG_RSP, stack + 4088)
    uc.emu_start(base + pe.header["entry"], back, count=100)
    assert uc.reg_read(x86.UC_X86_REG_RIP) == back
    assert uc.reg_read(x86.UC_X86_REG_RAX) == EFI_UNSUPPORTED


def test_a_signature_is_found_behind_the_file_and_accepted(
    image: Image, signer: Signer, signed: Path
) -> None:
    plain, data = image.bin.read_bytes(), signed.read_bytes()
    at, size = Pe(data).directories[CERTIFICATE]
    assert (at, at + size) == (len(plain), len(data))
    assert signer.accepts(signed)
    assert not signer.accepts(image.bin)


def test_signing_warns_of_nothing(image: Image, signer: Signer, tmp_path: Path) -> None:
    assert "warning" not in signer.sign(image.bin, tmp_path / "signed")


@pytest.mark.parametrize("place", ["setup header", "first of the body", "last of the body"])
def test_a_changed_byte_is_refused(
    image: Image, signer: Signer, signed: Path, tmp_path: Path, place: str
) -> None:
    at = {"setup header": 0x202, "first of the body": SETUP}.get(place, image.sizes.bin - 1)
    data = bytearray(signed.read_bytes())
    data[at] ^= 1
    changed = tmp_path / "changed"
    changed.write_bytes(data)
    assert not signer.accepts(changed)
