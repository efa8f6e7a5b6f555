"""`pvdump arm --print`: the configuration that it makes, the command that it prints, refusals."""

import os
import shlex
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from fixtures import bech32
from fixtures.btftypes import Types
from fixtures.targets import SIZE, make, vmcore

from pvdump import cli
from pvdump.arm import btf, settings, targets
from pvdump.dump import newfile
from pvfw import config, superblock
from pvfw.config import Config

UUID = "00010203-0405-0607-0809-0a0b0c0d0e0f"
KEYS = [bytes([number]) * 32 for number in (2, 3)]
RECIPIENTS = [bech32.encode("age", key) for key in KEYS]
TARGET = f"--target=xvdb={UUID}"


@pytest.fixture(autouse=True)
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel that says one thing of itself, its disks, and a current folder."""
    types = Types()
    types.struct("page", 64, [])
    (tmp_path / "vmlinux").write_bytes(types.encode())
    (tmp_path / "dev").mkdir()
    monkeypatch.setattr(btf, "SYSTEM", tmp_path / "vmlinux")
    monkeypatch.setattr(targets, "DEVICES", tmp_path / "dev")
    monkeypatch.setattr(settings, "SYSTEM", tmp_path / "pvdump.yaml")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def arm(*words: object) -> int:
    return cli.main(["arm", "--print", "--out=blob", *map(str, words)])


def made() -> Config:
    return config.decode(Path("blob").read_bytes())


def test_the_configuration_has_what_was_asked_for_and_what_the_kernel_says(
    capsys: pytest.CaptureFixture[str],
) -> None:
    keys = [f"--recipient={text}" for text in RECIPIENTS]
    more = ["--level=1", "--compress=zstd", "--compress-level=-3", "--then=halt", "--log=clear"]
    assert arm(TARGET, f"--target=xvdc1={UUID}", *keys, *more) == 0
    found = made()
    assert found.release == os.uname().release
    assert [(one.name, one.uuid) for one in found.targets] == [
        ("xvdb", bytes(range(16))),
        ("xvdc1", bytes(range(16))),
    ]
    assert (found.level, found.algorithm, found.compression) == (1, "zstd", -3)
    assert (found.then, found.log_clear) == ("halt", True)
    assert found.recipients == KEYS
    assert found.facts == {"SIZE(page)": 64}
    assert capsys.readouterr().err == ""


def test_without_options_it_has_the_defaults() -> None:
    assert arm() == 0
    found = made()
    assert (found.level, found.algorithm, found.compression) == (31, "zstd", 1)
    assert (found.targets, found.recipients, found.then) == ([], [], None)
    assert not found.log_clear


def test_each_configuration_has_a_nonce_of_its_own() -> None:
    nonces = set()
    for _ in range(2):
        assert arm("--force") == 0
        nonces.add(made().nonce)
    assert len(nonces) == 2
    assert {len(nonce) for nonce in nonces} == {32}


def test_the_command_loads_image_and_configuration_and_has_the_disks_besides(
    kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert arm(TARGET, f"--target=xvdc={UUID}", "--then=halt", "--image=a b.bin") == 0
    assert shlex.split(capsys.readouterr().out) == [
        *("kexec", "-p", "-s", f"{kernel}/a b.bin", f"--initrd={kernel}/blob"),
        "--command-line=pvdump.disk=xvdb,xvdc pvdump.then=halt",
    ]


def test_the_command_can_be_pasted_whatever_the_names_are(
    kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = "a\nb'\x1b[31m"
    assert cli.main(["arm", "--print", f"--out={out}", "--image=$(reboot)\t"]) == 0
    line = capsys.readouterr().out
    assert line.count("\n") == 1
    assert line[:-1].isprintable()
    pasted = line.replace("kexec", "printf '%s\\0'", 1)
    words = subprocess.run(["bash", "-c", pasted], check=True, capture_output=True).stdout
    assert words.decode().split("\0")[:-1] == [
        *("-p", "-s", f"{kernel}/$(reboot)\t", f"--initrd={kernel}/{out}"),
    ]


def test_with_recipients_the_command_line_forbids_a_dump_in_clear(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert arm(TARGET, f"--recipient={RECIPIENTS[0]}") == 0
    assert "pvdump.recipients=required" in shlex.split(capsys.readouterr().out)[-1].split()


def test_only_the_command_is_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    assert arm() == 0
    captured = capsys.readouterr()
    assert captured.out == f"kexec -p -s /boot/pvdump.bin --initrd={Path.cwd()}/blob\n"


def test_a_kernel_without_btf_is_armed_without_facts_and_that_is_told(
    kernel: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (kernel / "vmlinux").unlink()
    assert arm() == 0
    assert made().facts == {}
    assert f"this kernel has no {kernel}/vmlinux" in capsys.readouterr().err


def test_damaged_btf_is_refused(kernel: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (kernel / "vmlinux").write_bytes(b"\0" * 100)
    assert arm() == 1
    assert "vmlinux: no BTF of version 1" in capsys.readouterr().err
    assert not Path("blob").exists()


# Targets.


def test_the_uuid_of_a_target_is_read_from_its_disk(kernel: Path) -> None:
    block = superblock.Superblock(bytes(range(16)), SIZE)
    (kernel / "dev/xvdb").write_bytes(block.encode().ljust(SIZE, b"\0"))
    assert arm("--target=xvdb") == 0
    assert made().targets[0].uuid == bytes(range(16))


@pytest.mark.parametrize(
    ("prepared", "message"),
    [
        (None, "dev/xvdb: No such file or directory"),
        (b"\1", "dev/xvdb: no pvdump superblock: run `pvdump prepare`"),
        (superblock.COMPLETE, "dev/xvdb: it holds a dump (complete): `pvdump collect` it"),
        (superblock.READY, "dev/xvdb: an older pvdump prepared it: `pvdump prepare --again`"),
    ],
)
def test_a_target_that_would_be_refused_at_the_crash_is_refused_now(
    kernel: Path, capsys: pytest.CaptureFixture[str], prepared: object, message: str
) -> None:
    if isinstance(prepared, bytes):
        (kernel / "dev/xvdb").write_bytes(prepared * SIZE)
    elif prepared is not None:
        make(kernel / "dev/xvdb", prepared, vmcore())
    assert arm("--target=xvdb") == 1
    captured = capsys.readouterr()
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert captured.out == ""
    assert not Path("blob").exists()


def test_a_target_said_twice_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert arm(TARGET, TARGET) == 1
    assert "target xvdb is there twice" in capsys.readouterr().err


# The file.


def test_the_file_is_readable_by_its_owner_alone() -> None:
    before = os.umask(0)
    try:
        assert arm() == 0
        assert arm("--force") == 0
    finally:
        os.umask(before)
    assert stat.S_IMODE(Path("blob").stat().st_mode) == 0o600


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_nothing_is_overwritten_without_being_told(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = Path("blob")
    {"file": path.touch, "link": lambda: path.symlink_to("nowhere"), "folder": path.mkdir}[kind]()
    assert arm() == 1
    assert "blob exists; see --force" in capsys.readouterr().err
    assert not Path("nowhere").exists()
    assert kind != "file" or path.read_bytes() == b""


def test_with_force_a_file_is_replaced_and_a_link_is_not_followed() -> None:
    Path("other").write_bytes(b"kept")
    Path("blob").symlink_to("other")
    assert arm("--force") == 0
    assert made().level == 31
    assert Path("other").read_bytes() == b"kept"
    assert sorted(path.name for path in Path().iterdir()) == ["blob", "dev", "other", "vmlinux"]


@pytest.mark.parametrize("force", [[], ["--force"]])
@pytest.mark.parametrize("link", ["same", "symlink", "hardlink", "folder"])
@pytest.mark.parametrize("name", ["c.yaml", "pvdump.yaml", "image", "dev/xvdb"])
def test_an_input_is_never_replaced_by_the_output(
    kernel: Path,
    force: list[str],
    link: str,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(newfile, "refuse_dev", lambda path: None)  # so that dev/ is no /dev
    for each in ("c.yaml", "pvdump.yaml"):
        (kernel / each).write_text("level: 1")
    (kernel / "image").write_bytes(b"image")
    make(kernel / "dev/xvdb", superblock.READY, b"")
    before = (kernel / name).read_bytes()
    out = kernel / "out"
    if link == "same":
        out = kernel / name
    elif link == "symlink":
        out.symlink_to(name)
    elif link == "hardlink":
        out.hardlink_to(kernel / name)
    else:
        (kernel / "other").symlink_to((kernel / name).parent)
        out = kernel / "other" / Path(name).name
    words = ["--image=image", *([] if name == "pvdump.yaml" else ["--config=c.yaml"])]
    assert cli.main(["arm", "--print", f"--out={out}", TARGET, *words, *force]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert f"{out} is " in error
    assert "itself, which is read for it: name another file" in error
    assert (kernel / name).read_bytes() == before
    assert (kernel / name).samefile(out)


@pytest.mark.parametrize("kind", ["fifo", "socket"])
def test_with_force_what_is_no_file_is_not_replaced(
    kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mknod("blob", {"fifo": stat.S_IFIFO, "socket": stat.S_IFSOCK}[kind])
    assert arm("--force") == 1
    assert "blob is no file, and is not replaced" in capsys.readouterr().err
    assert not Path("blob").is_file()


def test_what_a_killed_run_left_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    Path("blob.pvdump-new").touch()
    assert arm("--force") == 1
    assert "blob.pvdump-new is left of a run that was killed: remove it" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_whole_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("blob").write_bytes(b"before")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert arm("--force") == 1
    assert cli.main(["arm", "--print", "--out=new"]) == 1
    assert capsys.readouterr().err.count("No space left on device") == 2
    assert Path("blob").read_bytes() == b"before"
    assert sorted(path.name for path in Path().iterdir()) == ["blob", "dev", "vmlinux"]


# The YAML file.

FILE = f"""
targets: [xvdc={UUID}, xvdb={UUID}]
level: log
compress: none
compress_level: 0
recipients:
  - {RECIPIENTS[0]}
log: clear
then: poweroff
"""


def test_a_file_says_the_same_as_options() -> None:
    Path("c.yaml").write_text(FILE)
    assert arm("--config=c.yaml") == 0
    found = made()
    assert [one.name for one in found.targets] == ["xvdc", "xvdb"]
    assert (found.level, found.algorithm, found.compression) == (config.LOG_ONLY, "none", 0)
    assert (found.recipients, found.log_clear, found.then) == (KEYS[:1], True, "poweroff")


def test_the_file_of_the_system_counts_where_no_other_is_named() -> None:
    Path("pvdump.yaml").write_text("level: 1")
    assert arm() == 0
    assert made().level == 1
    Path("c.yaml").write_text("then: halt")
    assert arm("--config=c.yaml", "--force") == 0
    assert made().level == 31


def test_an_option_counts_before_the_file() -> None:
    Path("c.yaml").write_text(FILE)
    key = f"--recipient={RECIPIENTS[1]}"
    assert arm("--config=c.yaml", "--level=0", f"--target=xvdd={UUID}", key) == 0
    found = made()
    assert [one.name for one in found.targets] == ["xvdd"]
    assert (found.level, found.recipients, found.then) == (0, KEYS[1:], "poweroff")


def test_a_private_key_in_a_file_is_not_repeated(capsys: pytest.CaptureFixture[str]) -> None:
    Path("c.yaml").write_text("recipients: [AGE-SECRET-KEY-1GFPYYSJZ]")
    assert arm("--config=c.yaml") == 1
    captured = capsys.readouterr()
    assert "recipients: a private key" in captured.err
    assert "GFPYY" not in captured.err


def test_without_pyyaml_the_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "yaml", None)
    assert arm("--config=c.yaml") == 1
    assert "`apt install python3-yaml`" in capsys.readouterr().err


def test_pyyaml_is_imported_for_a_file_alone() -> None:
    program = "import sys; from pvdump.arm import command; print('yaml' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, env=environment
    )
    assert done.stdout == b"False\n"


def test_each_setting_of_the_image_has_an_option() -> None:
    words = ["--level=0", "--compress=none", "--compress-level=1", "--log=clear", "--then=halt"]
    words += [TARGET, f"--recipient={RECIPIENTS[0]}"]
    options = cli.parser("arm").parse_args(["arm", "--print", "--out=x", *words])
    assert not [name for name in settings.OPTIONS if getattr(options, name) is None]
