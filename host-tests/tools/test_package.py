"""The packages: what is in them, that they are the same each time, that their texts are true."""

import configparser
import gzip
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pvdump import cli
from tools import lint, package

ROOT = Path(__file__).resolve().parents[2]
UNITS = ROOT / "host/pvdump/guest/units"
Build = Callable[[str], package.Packages]


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Builds the packages in a folder of their own."""
    return lambda name: package.build(tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module")
def packages(build: Build) -> package.Packages:
    return build("first")


@pytest.fixture(scope="module")
def deb(packages: package.Packages, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the .deb, unpacked, with its scripts in DEBIAN."""
    folder = tmp_path_factory.mktemp("deb")
    subprocess.run(["dpkg-deb", "--raw-extract", packages.deb, folder], check=True)
    return folder


def test_two_builds_give_the_same_bytes(
    build: Build, packages: package.Packages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setenv("COLUMNS", "200")
    again = build("second")
    for kind in ("wheel", "deb", "rpm"):
        assert getattr(again, kind).read_bytes() == getattr(packages, kind).read_bytes(), kind


# What each image begins with, at which place: a bzImage's header, an ELF file's.
IMAGES = {
    "pvdump.bin": (0x202, b"HdrS"),
    "pvboot.elf": (0, b"\x7fELF"),
    "pvboot.fw": (0, b"\x7fELF"),
}


@pytest.mark.parametrize("name", IMAGES)
def test_each_has_the_images(packages: package.Packages, deb: Path, name: str) -> None:
    at, begin = IMAGES[name]
    image = (deb / "usr/lib/pvdump" / name).read_bytes()
    assert image[at:].startswith(begin)
    with zipfile.ZipFile(packages.wheel) as archive:
        assert archive.read(f"pvdump/image/{name}") == image


def test_an_installed_pvboot_is_the_one_with_the_prompt(deb: Path) -> None:
    for name in ("pvboot.elf", "pvboot.fw"):
        assert b"help() says what there is." in (deb / "usr/lib/pvdump" / name).read_bytes()


def test_the_wheel_has_the_units_for_setup(packages: package.Packages) -> None:
    with zipfile.ZipFile(packages.wheel) as archive:
        names = {Path(name).name for name in archive.namelist() if "/guest/units/" in name}
    assert names == {path.name for path in UNITS.iterdir()}


def test_the_command_runs_from_where_it_is_installed(deb: Path, tmp_path: Path) -> None:
    text = (deb / "usr/bin/pvdump").read_text()
    here = tmp_path / "pvdump"
    here.write_text(text.replace("/usr/lib/pvdump", str(deb / "usr/lib/pvdump")))
    command = ["python3", "-IB", here, "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("pvdump ")


def test_the_settings_file_is_kept_when_the_package_is_upgraded(deb: Path) -> None:
    hooks = ("initramfs/post-update.d", "kernel/postinst.d", "kernel/postrm.d")
    assert sorted((deb / "DEBIAN/conffiles").read_text().split()) == [
        *(f"/etc/{folder}/zzz-pvdump" for folder in hooks),
        "/etc/pvdump.yaml",
    ]


def test_the_hooks_for_kernels_are_programs_that_run_last(deb: Path) -> None:
    names = ["usr/lib/kernel/install.d/99-pvdump.install"]
    names += [f"etc/kernel/{folder}.d/zzz-pvdump" for folder in ("postinst", "postrm")]
    names += ["etc/initramfs/post-update.d/zzz-pvdump"]
    for name in names:
        assert (deb / name).stat().st_mode & 0o777 == 0o755
        subprocess.run(["sh", "-n", deb / name], check=True)
    assert "zzz-pvdump" > "zz-update-grub"


@pytest.mark.parametrize("name", package.SCRIPTS)
def test_a_script_is_one_that_sh_takes(name: str) -> None:
    subprocess.run(["sh", "-n", ROOT / "packaging/scripts" / name], check=True)


def test_nothing_is_started_or_enabled_by_installing(deb: Path) -> None:
    words = re.findall(r"systemctl (\S+)", (deb / "DEBIAN/postinst").read_text())
    assert words == ["daemon-reload"]


def test_purging_removes_records_and_no_dump(deb: Path) -> None:
    text = (deb / "DEBIAN/postrm").read_text()
    commands = [line for line in text.splitlines() if line.strip().startswith("rm")]
    assert commands
    assert not [line for line in commands if "/var/crash" in line]


def test_the_man_page_has_every_command_and_option(deb: Path) -> None:
    packed = (deb / "usr/share/man/man1/pvdump.1.gz").read_bytes()
    text = gzip.decompress(packed).decode().replace("\\-", "-")
    for name in cli.COMMANDS:
        assert f"pvdump {name}" in text
        for option in set(re.findall(r"--[a-z][a-z-]+", help_of(name))) - {"--help"}:
            assert option in text, (name, option)


def test_the_shell_completes_every_command(deb: Path) -> None:
    text = (deb / "usr/share/bash-completion/completions/pvdump").read_text()
    assert f"_subparsers=({' '.join(cli.COMMANDS)})" in text


def help_of(command: str) -> str:
    parser = cli.parser(command)
    (commands,) = (action for action in parser._actions if action.dest == "command")
    return commands.choices[command].format_help()  # type: ignore[index, call-overload]


def test_a_unit_runs_commands_that_there_are() -> None:
    for path in UNITS.glob("*.service"):
        unit = configparser.ConfigParser(interpolation=None)
        unit.optionxform = str  # type: ignore[assignment, method-assign]
        unit.read(path)
        for key in ("ExecStart", "ExecStop"):
            if line := unit["Service"].get(key):
                program, command, *_ = line.split()
                assert (program, command in cli.COMMANDS) == ("/usr/bin/pvdump", True), line


def test_everything_in_the_packages_is_of_the_tree(deb: Path) -> None:
    known = {path.relative_to(path.parts[0]) for path in lint.files(*package.PACKAGES)}
    base = deb / package.PYTHON
    assert {path.relative_to(base) for path in base.rglob("*") if path.is_file()} <= known


def test_the_files_belong_to_root(packages: package.Packages, tmp_path: Path) -> None:
    tarball = tmp_path / "data.tar"
    with tarball.open("wb") as stream:
        subprocess.run(["dpkg-deb", "--fsys-tarfile", packages.deb], stdout=stream, check=True)
    with tarfile.open(tarball) as archive:
        assert {(member.uid, member.gid) for member in archive} == {(0, 0)}
        modes = {member.mode & 0o777 for member in archive}
    assert modes <= {0o644, 0o755}
