"""`pvdump sign` with Debian's sbsign: the image is signed and checked, or nothing is changed."""

import os
import shutil
from pathlib import Path

import pytest
from fixtures.signing import Signer

from pvdump import cli
from pvdump.guest.sign import NEW
from tools.image import Image


@pytest.fixture
def folder(tmp_path: Path, signer: Signer, monkeypatch: pytest.MonkeyPatch, image: Image) -> Path:
    """A folder with the image as pvdump.bin; its folder "bin" has the programs."""
    programs = tmp_path / "bin"
    programs.mkdir()
    signer.install(programs)
    monkeypatch.setenv("PATH", str(programs))
    shutil.copy(image.bin, tmp_path / "pvdump.bin")
    return tmp_path


def sign(signer: Signer, *words: object) -> int:
    keys = ["--key", str(signer.key), "--cert", str(signer.certificate)]
    return cli.main(["sign", *keys, *map(str, words)])


def test_the_image_is_signed_in_place(folder: Path, signer: Signer) -> None:
    assert sign(signer, folder / "pvdump.bin") == 0
    assert signer.accepts(folder / "pvdump.bin")
    assert sorted(path.name for path in folder.iterdir()) == ["bin", "pvdump.bin"]


def test_with_out_the_image_stays_as_it_is(folder: Path, signer: Signer) -> None:
    before = (folder / "pvdump.bin").read_bytes()
    assert sign(signer, "--out", folder / "signed", folder / "pvdump.bin") == 0
    assert signer.accepts(folder / "signed")
    assert (folder / "pvdump.bin").read_bytes() == before


def test_a_certificate_of_another_key_changes_nothing(
    folder: Path,
    signer: Signer,
    tmp_path_factory: pytest.TempPathFactory,
    capsys: pytest.CaptureFixture[str],
) -> None:
    other = Signer(tmp_path_factory.mktemp("other"))
    before = (folder / "pvdump.bin").read_bytes()
    keys = ["--key", str(signer.key), "--cert", str(other.certificate)]
    assert cli.main(["sign", *keys, str(folder / "pvdump.bin")]) == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (folder / "pvdump.bin").read_bytes() == before


def test_a_signature_that_does_not_hold_changes_nothing(
    folder: Path, signer: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "bin/sbsign").write_text(
        '#!/bin/sh\nwhile [ "$1" != --output ]; do shift; done\n'
        'read -r line < "$3"; echo "$line" > "$2"\n'
    )
    before = (folder / "pvdump.bin").read_bytes()
    assert sign(signer, folder / "pvdump.bin") == 1
    assert "sbverify" in capsys.readouterr().err
    assert (folder / "pvdump.bin").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == ["bin", "pvdump.bin"]


@pytest.mark.parametrize("which", ["key", "certificate"])
@pytest.mark.parametrize("link", [False, True])
def test_a_key_is_never_replaced_by_the_image(
    folder: Path, signer: Signer, which: str, link: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    path = getattr(signer, which)
    before = path.read_bytes()
    out = path
    if link:
        out = folder / "out"
        out.symlink_to(path)
    assert sign(signer, "--out", out, folder / "pvdump.bin") == 1
    assert "itself, which is read for it" in capsys.readouterr().err
    assert path.read_bytes() == before
    assert out.samefile(path)


def test_an_image_that_has_the_name_of_what_is_made_stays(
    folder: Path, signer: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    image = folder / f"out{NEW}"
    (folder / "pvdump.bin").rename(image)
    before = image.read_bytes()
    assert sign(signer, "--out", folder / "out", image) == 1
    assert "itself, which is read for it" in capsys.readouterr().err
    assert image.read_bytes() == before


@pytest.mark.parametrize("kind", ["data", "fifo", "folder"])
def test_what_is_no_image_is_not_replaced(
    folder: Path, signer: Signer, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out = folder / "out"
    {"data": lambda: out.write_text("mine"), "fifo": lambda: os.mkfifo(out), "folder": out.mkdir}[
        kind
    ]()
    before = out.stat()
    assert sign(signer, "--out", out, folder / "pvdump.bin") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (out.stat().st_ino, out.stat().st_size) == (before.st_ino, before.st_size)


def test_what_is_no_image_is_refused_in_one_line(
    folder: Path, signer: Signer, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "pvdump.bin").write_bytes(b"no image" * 1000)
    assert sign(signer, folder / "pvdump.bin") == 1
    assert capsys.readouterr().err.count("\n") == 1
    assert (folder / "pvdump.bin").read_bytes() == b"no image" * 1000
