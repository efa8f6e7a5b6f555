"""`pvdump sign-boot` and the hooks that call it: Debian's minisign signs, pvboot's code checks."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from fixtures.bootdisks import MIB, ext, run, volumes
from fixtures.minisigning import PROGRAM, Minisign
from fixtures.signing import put_program

from lab import packages
from pvdump import cli
from pvfw.boot.entries import text
from pvfw.boot.errors import NotSigned
from pvfw.boot.minisign import PublicKey
from pvfw.boot.trust import Trust
from tools.imageconfig import ROOT

HOOKS = ROOT / "packaging/boot"
VERSION = "6.12.57+deb13-amd64"
Hook = Callable[..., "subprocess.CompletedProcess[str]"]


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


class Guest:
    """The files of a guest below a folder, a key, and the programs pvdump and minisign in PATH."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "guest"
        self.boot = self.folder / "boot"
        self.boot.mkdir(parents=True)
        self.key = Minisign(folder)
        self.config = folder / "pvdump.yaml"
        self.config.write_text(f"boot_key: {self.key.secret}\n")
        self.programs = folder / "bin"
        self.programs.mkdir()
        put_program(packages.signer(), PROGRAM, self.programs)
        program = self.programs / "pvdump"
        program.write_text(
            f'#!/bin/sh\ncommand=$1\nshift\nexec {sys.executable} -B -m pvdump "$command" '
            f'--config {self.config} "$@"\n'
        )
        program.chmod(0o755)

    def put(self, name: str, content: bytes = b"content") -> Path:
        return put(self.folder / name, content)

    def signatures(self) -> list[str]:
        """The files that are signed, and whose signatures count for pvboot."""
        files = [path for path in self.boot.rglob("*") if path.is_file()]
        names = {str(path.relative_to(self.folder)): path.read_bytes() for path in files}
        scratch = Path(tempfile.mkdtemp(dir=self.folder.parent))
        data = ext(scratch, names, "-t", "ext4", size=16 * MIB)
        found, _ = volumes(data, trust=Trust([PublicKey(self.key.public)]))
        (volume,) = found.all
        return sorted(
            name for name in names if not name.endswith(".minisig") and _counts(volume, name)
        )

    def hook(
        self,
        name: str,
        *words: str,
        folder: Path = HOOKS,
        program: bool = False,
        **environment: str,
    ) -> "subprocess.CompletedProcess[str]":
        """Run a hook as its caller does, or a program that calls some."""
        own = {
            "PATH": f"{self.programs}:{os.environ['PATH']}",
            "PYTHONPATH": ":".join(str(ROOT / each) for each in ("drivers", "firmware", "host")),
            "DPKG_ROOT": str(self.folder),
        }
        return subprocess.run(
            [*([self.programs / name] if program else ["sh", folder / name]), *words],
            env={**own, **environment},
            capture_output=True,
            text=True,
            check=False,
        )


def _counts(volume: Any, name: str) -> bool:
    try:
        run(text(volume, name.encode()))
    except NotSigned:
        return False
    return True


@pytest.fixture
def guest(tmp_path: Path, machine: object, monkeypatch: pytest.MonkeyPatch) -> Guest:
    made = Guest(tmp_path)
    monkeypatch.setenv("PATH", f"{made.programs}:{os.environ['PATH']}")
    return made


def sign(guest: Guest, *words: object) -> int:
    return cli.main(["sign-boot", "--config", str(guest.config), *map(str, words)])


def test_what_it_signs_counts_for_pvboot(guest: Guest) -> None:
    path = guest.put("boot/vmlinuz-1")
    assert guest.signatures() == []
    assert sign(guest, path) == 0
    assert guest.signatures() == ["boot/vmlinuz-1"]
    assert sorted(each.name for each in guest.boot.iterdir()) == ["minisig", "vmlinuz-1"]
    path.write_bytes(b"other")
    assert guest.signatures() == []
    assert sign(guest, path) == 0
    assert guest.signatures() == ["boot/vmlinuz-1"]


def test_an_entry_is_signed_with_what_it_names(
    guest: Guest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERNEL_INSTALL_BOOT_ROOT", str(guest.boot))
    guest.put("boot/token/1/linux")
    guest.put("boot/token/1/initrd")
    guest.put("boot/token/1/other")
    entry = guest.put(
        "boot/loader/entries/token-1.conf",
        b"title x\nlinux /token/1/linux\ninitrd  /token/1/initrd $tuned_initrd\noptions linux /x\n",
    )
    assert sign(guest, "--entry", entry) == 0
    signed = ["boot/loader/entries/token-1.conf", "boot/token/1/initrd", "boot/token/1/linux"]
    assert guest.signatures() == signed
    # The path below the partition is signed: the files of another version do not pass for these.
    (guest.boot / "token/1").rename(guest.boot / "token/2")
    assert guest.signatures() == signed[:1]


def test_without_a_key_nothing_is_signed(guest: Guest, capsys: pytest.CaptureFixture[str]) -> None:
    guest.config.write_text("keep: 5\n")
    path = guest.put("boot/vmlinuz-1")
    assert sign(guest, path) == 1
    assert "the settings have no boot_key" in capsys.readouterr().err
    assert sign(guest, "--if-set", path) == 0
    assert capsys.readouterr() == ("", "")
    assert not (guest.boot / "minisig").exists()


def test_a_key_that_others_may_read_is_refused(
    guest: Guest, capsys: pytest.CaptureFixture[str]
) -> None:
    guest.key.secret.chmod(0o640)
    assert sign(guest, guest.put("boot/vmlinuz-1")) == 1
    assert f"others may read it: chmod 600 {guest.key.secret}" in capsys.readouterr().err


def test_a_signature_that_cannot_be_made_leaves_the_old_one(
    guest: Guest, capsys: pytest.CaptureFixture[str]
) -> None:
    path = guest.put("boot/vmlinuz-1")
    assert sign(guest, path) == 0
    before = (guest.boot / "minisig/vmlinuz-1.minisig").read_bytes()
    guest.key.secret.write_text("no key\n")
    assert sign(guest, path) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "minisign" in line
    assert [each.name for each in (guest.boot / "minisig").iterdir()] == ["vmlinuz-1.minisig"]
    assert (guest.boot / "minisig/vmlinuz-1.minisig").read_bytes() == before


# The hooks of Debian's packages of kernels, and of kernel-install.


def executable(path: Path) -> None:
    path.chmod(0o755)


def test_a_kernel_s_hooks_sign_what_was_made_for_it(guest: Guest) -> None:
    image = guest.put(f"boot/vmlinuz-{VERSION}")
    initrd = guest.put(f"boot/initrd.img-{VERSION}")
    guest.put("boot/vmlinuz-older")
    guest.put("boot/grub/grub.cfg")
    guest.put("boot/extlinux/extlinux.conf")
    executable(guest.put("etc/kernel/postinst.d/zz-update-grub"))
    for name, words in {"postinst": image, "post-update": initrd}.items():
        done = guest.hook(name, VERSION, str(words))
        assert (done.returncode, done.stdout) == (0, ""), done.stderr
    # What no hook has made may be somebody else's.
    assert guest.signatures() == [
        "boot/grub/grub.cfg",
        f"boot/initrd.img-{VERSION}",
        f"boot/vmlinuz-{VERSION}",
    ]


def test_the_hook_after_a_kernel_s_removal_signs_grub_s_file_again(guest: Guest) -> None:
    guest.put("boot/grub/grub.cfg")
    guest.put(f"boot/minisig/vmlinuz-{VERSION}.minisig")
    guest.put("boot/minisig/vmlinuz-older.minisig")
    executable(guest.put("etc/kernel/postrm.d/zz-update-grub"))
    assert guest.hook("postrm", VERSION, f"/boot/vmlinuz-{VERSION}").returncode == 0
    assert guest.signatures() == ["boot/grub/grub.cfg"]
    left = [path.name for path in (guest.boot / "minisig").iterdir()]
    assert left == ["vmlinuz-older.minisig"]


@pytest.mark.parametrize("name", ["postinst", "postrm", "post-update"])
def test_a_hook_without_a_key_says_and_does_nothing(name: str, guest: Guest) -> None:
    guest.config.write_text("")
    image = guest.put(f"boot/vmlinuz-{VERSION}")
    done = guest.hook(name, VERSION, str(image))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (guest.boot / "minisig").exists()


@pytest.mark.parametrize("name", ["postinst", "postrm", "post-update", "kernel-install"])
def test_a_hook_whose_package_was_removed_does_nothing(name: str, guest: Guest) -> None:
    (guest.programs / "pvdump").unlink()
    image = guest.put(f"boot/vmlinuz-{VERSION}")
    done = guest.hook(name, VERSION, str(image), PATH=f"{guest.programs}:/bin:/usr/bin")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_hook_that_cannot_sign_fails_in_one_line(guest: Guest) -> None:
    guest.key.secret.unlink()
    done = guest.hook("post-update", VERSION, str(guest.put("boot/initrd.img-1")))
    assert done.returncode == 1
    assert done.stderr.startswith("pvdump sign-boot: boot_key: ")
    assert done.stderr.count("\n") == 1


def _install(guest: Guest, layout: str, command: str = "add", **more: str) -> None:
    variables: Mapping[str, str] = {
        "KERNEL_INSTALL_BOOT_ROOT": str(guest.boot),
        "KERNEL_INSTALL_ENTRY_TOKEN": "token",
        "KERNEL_INSTALL_MACHINE_ID": "machine",
        "KERNEL_INSTALL_LAYOUT": layout,
        **more,
    }
    done = guest.hook("kernel-install", command, "1", f"{guest.boot}/token/1", **variables)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_kernel_install_has_its_entry_signed(guest: Guest, tmp_path: Path) -> None:
    """kernel-install of Debian 13 with its own plugin, and ours behind it."""
    root = packages.kernel_install()
    put_program(root, "/usr/bin/kernel-install", guest.programs)
    executable(put(tmp_path / "99-pvdump.install", (HOOKS / "kernel-install").read_bytes()))
    theirs = root.find("/usr/lib/kernel/install.d/90-loaderentry.install")
    put(tmp_path / "conf/install.conf", f"layout=bls\nBOOT_ROOT={guest.boot}\n".encode())
    put(tmp_path / "conf/entry-token", b"token\n")
    put(tmp_path / "conf/cmdline", b"root=/dev/xvda ro\n")
    environment = {
        "KERNEL_INSTALL_PLUGINS": f"{theirs} {tmp_path / '99-pvdump.install'}",
        "KERNEL_INSTALL_CONF_ROOT": str(tmp_path / "conf"),
        "BOOT_MNT": str(guest.boot),
    }
    files = [str(put(tmp_path / name, name.encode())) for name in ("vmlinuz", "initrd.img")]
    for version in ("6.1.1", "6.12.9"):
        done = guest.hook("kernel-install", "add", version, *files, program=True, **environment)
        assert done.returncode == 0, done.stderr
    signed = [
        *("boot/loader/entries/token-6.1.1.conf", "boot/loader/entries/token-6.12.9.conf"),
        *("boot/token/6.1.1/initrd.img", "boot/token/6.1.1/linux"),
        *("boot/token/6.12.9/initrd.img", "boot/token/6.12.9/linux"),
    ]
    assert guest.signatures() == signed
    done = guest.hook("kernel-install", "remove", "6.1.1", program=True, **environment)
    assert done.returncode == 0, done.stderr
    assert guest.signatures() == [name for name in signed if "6.12" in name]
    left = [path.name for path in (guest.boot / "loader/entries/minisig").iterdir()]
    assert left == ["token-6.12.9.conf.minisig"]


def test_kernel_install_s_plugin_signs_an_entry_and_its_files(guest: Guest) -> None:
    guest.put("boot/token/1/linux")
    guest.put("boot/loader/entries/token-1+3.conf", b"linux /token/1/linux\n")
    guest.put("boot/EFI/Linux/token-1.efi")
    _install(guest, "bls")
    assert guest.signatures() == ["boot/loader/entries/token-1+3.conf", "boot/token/1/linux"]
    _install(guest, "bls", "remove")
    assert guest.signatures() == ["boot/token/1/linux"]


def test_kernel_install_s_plugin_signs_a_unified_image(guest: Guest) -> None:
    guest.put("boot/loader/entries/token-1.conf", b"linux /token/1/linux\n")
    guest.put("boot/EFI/Linux/token-1.efi")
    _install(guest, "uki")
    assert guest.signatures() == ["boot/EFI/Linux/token-1.efi"]


def test_kernel_install_s_plugin_signs_nothing_of_another_layout(guest: Guest) -> None:
    guest.put("boot/loader/entries/token-1.conf", b"linux /token/1/linux\n")
    guest.put("boot/loader/entries/machine-1.conf", b"linux /token/1/linux\n")
    _install(guest, "other")
    assert guest.signatures() == []


def test_kernel_install_s_plugin_signs_the_entries_of_fedora_s_grub(
    guest: Guest, tmp_path: Path
) -> None:
    guest.put("boot/vmlinuz-1")
    guest.put("boot/loader/entries/machine-1.conf", b"linux /vmlinuz-1\n")
    folder = tmp_path / "install.d"
    folder.mkdir()
    (folder / "kernel-install").write_bytes((HOOKS / "kernel-install").read_bytes())
    executable(folder / "kernel-install")
    (folder / "20-grub.install").write_text("")
    executable(folder / "20-grub.install")
    done = guest.hook(
        *("kernel-install", "add", "1", "x"),
        folder=folder,
        KERNEL_INSTALL_BOOT_ROOT=str(guest.boot),
        KERNEL_INSTALL_ENTRY_TOKEN="token",
        KERNEL_INSTALL_MACHINE_ID="machine",
        KERNEL_INSTALL_LAYOUT="other",
    )
    assert done.returncode == 0, done.stderr
    assert guest.signatures() == ["boot/loader/entries/machine-1.conf", "boot/vmlinuz-1"]
