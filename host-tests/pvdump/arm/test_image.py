"""The image that `pvdump arm` loads: where it is found, and what is no image."""

import struct
from pathlib import Path

import pytest
from fixtures.armingroot import bzimage

from pvdump.arm import image


def test_the_first_place_that_has_an_image_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = tuple(tmp_path / name for name in ("wheel", "package", "boot"))
    monkeypatch.setattr(image, "PLACES", places)
    assert image.find() == places[2]
    places[1].touch()
    places[2].touch()
    assert image.find() == places[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no image .*: install pvdump, or name it with --image"),
        (b"", "is no image that kexec loads"),
        (bytes(0x2000), "is no image that kexec loads"),
        (b"\x7fELF".ljust(0x2000, b"\0"), "is no image that kexec loads"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "pvdump.bin"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(image.ImageError, match=message):
        image.read(path)


@pytest.mark.parametrize(
    ("certificates", "signed"),
    [((0, 0), False), ((0x1000, 0x600), True), ((0x2F00, 0x600), False)],
)
def test_a_signature_is_seen(tmp_path: Path, certificates: tuple[int, int], signed: bool) -> None:
    path = tmp_path / "pvdump.bin"
    path.write_bytes(bzimage(certificates))
    assert image.is_signed(image.read(path)) is signed


@pytest.mark.parametrize("at", [0x2FFF, 0xFFFFFFFF])
def test_a_pe_header_outside_the_file_is_no_signature(at: int) -> None:
    raw = bytearray(bzimage((0x1000, 0x600)))
    struct.pack_into("<I", raw, 0x3C, at)
    assert not image.is_signed(bytes(raw))
