"""pvdump report: which dump it takes, in which form it tells, and what it does without drgn."""

import json
import os
import sys
from pathlib import Path

import pytest
from fixtures import dumpfolders
from fixtures.kernellog import Ring
from fixtures.loggedcore import vmcore
from fixtures.targets import make

import pvdump.report
from pvdump import cli
from pvdump.arm import settings
from pvfw import superblock

PANIC = b"Kernel panic - not syncing: sysrq triggered crash"
CPU = b"CPU: 0 PID: 98 Comm: sh Not tainted 6.1.0 #1"


@pytest.fixture(autouse=True)
def without_drgn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "drgn", None)
    # What was imported with drgn is imported again; the package has it as an attribute, too.
    for name in [name for name in sys.modules if name.startswith("pvdump.report.")]:
        monkeypatch.delitem(sys.modules, name)
        monkeypatch.delattr(pvdump.report, name.rpartition(".")[2], raising=False)


@pytest.fixture
def dump(tmp_path: Path) -> Path:
    """A folder with a dump whose log says why."""
    return made(tmp_path / "crash" / "2026-11-28", PANIC)


def made(folder: Path, line: bytes, cpu: bytes = CPU) -> Path:
    ring = Ring(count_bits=4, size_bits=13)
    ring.add(line, 65 * 10**9)
    ring.add(cpu, 66 * 10**9)
    folder.mkdir(parents=True)
    make(folder / "disk", superblock.COMPLETE, vmcore(ring, OSRELEASE="6.1.0-test", CRASHTIME="9"))
    words = ["collect", "--format=elf", str(folder / "disk"), str(folder / "vmcore")]
    assert cli.main(words) == 0
    return folder


def told(capfd: pytest.CaptureFixture[str], *words: object) -> str:
    capfd.readouterr()
    assert cli.main(["report", *map(str, words)]) == 0
    captured = capfd.readouterr()
    assert captured.err == ""
    return captured.out


@pytest.mark.parametrize("name", [".", "vmcore", ".."])
def test_a_dump_is_named_by_its_file_its_folder_or_the_folder_of_all(
    dump: Path, capfd: pytest.CaptureFixture[str], name: str
) -> None:
    assert PANIC.decode() in told(capfd, dump / name)


def test_the_newest_dump_is_taken(dump: Path, capfd: pytest.CaptureFixture[str]) -> None:
    newer = made(dump.parent / "2026-11-27", b"Kernel panic - not syncing: newer")
    os.utime(dump / "vmcore", (1, 1))
    assert f"{newer}/vmcore" in told(capfd, dump.parent)
    os.utime(newer / "vmcore", (0, 0))
    assert f"{dump}/vmcore" in told(capfd, dump.parent)


def test_of_collected_dumps_it_is_the_newest_that_list_shows(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    last, first = collected(tmp_path / "crash", 2), collected(tmp_path / "crash", 1)
    os.utime(last / "vmcore", (1, 1))
    os.utime(first / "vmcore", (2, 2))
    assert f"{last}/vmcore" in told(capfd, tmp_path / "crash")


def collected(directory: Path, number: int) -> Path:
    """The folder of a dump that `pvdump collect` put into the folder of dumps."""
    path = dumpfolders.make(directory, number).path
    (path / "vmcore").unlink()
    made(path / "made", PANIC)
    (path / "made" / "vmcore").rename(path / "vmcore")
    return path


@pytest.mark.parametrize("system", [True, False], ids=["/etc", "--config"])
def test_without_a_name_it_is_the_newest_in_the_folder_that_the_settings_name(
    dump: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    system: bool,
) -> None:
    config = tmp_path / "pvdump.yaml"
    config.write_text(f"directory: {dump.parent}\n")
    if system:
        monkeypatch.setattr(settings, "SYSTEM", config)
    words = [] if system else ["--config", config]
    assert f"{dump}/vmcore" in told(capfd, *words)


def test_without_a_name_and_settings_it_is_the_newest_of_var_crash(
    dump: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    capfd.readouterr()
    assert cli.main(["report", "--help"]) == 0
    assert "`directory`, else /var/crash)" in " ".join(capfd.readouterr().out.split())
    default = settings.SETTINGS["directory"]
    assert default.default == Path("/var/crash")
    monkeypatch.setattr(settings, "SYSTEM", tmp_path / "none")
    monkeypatch.setitem(settings.SETTINGS, "directory", default._replace(default=dump.parent))
    assert f"{dump}/vmcore" in told(capfd)


def test_without_drgn_there_are_release_log_and_registers(
    dump: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    said = told(capfd, dump)
    for part in (
        "kernel          6.1.0-test",
        "crashed at      1970-01-01 00:00:09 UTC",
        "uptime          1 min 6.0 s",
        "registers of CPU 0",
        CPU.decode(),
        "drgn 0.3.0 or newer is needed for tasks, stacks and memory: `",
        "-m pip install drgn`",
    ):
        assert part in said


@pytest.mark.parametrize("uid", [b"", b"UID: 0 "])
def test_an_elf_dump_has_the_crashed_cpu_s_number_from_its_log(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], uid: bytes
) -> None:
    folder = made(tmp_path / "elf", PANIC, CPU.replace(b"PID", uid + b"PID"))
    assert "registers of CPU 0" in told(capfd, folder)


def test_json_has_the_documented_names(dump: Path, capfd: pytest.CaptureFixture[str]) -> None:
    said = json.loads(told(capfd, "--json", dump))
    assert said["kernel"]["release"] == "6.1.0-test"
    assert said["crash"]["cpu"] == 0
    assert said["crash"]["lines"][0] == PANIC.decode()
    documented = (Path(__file__).parents[3] / "docs" / "report.md").read_text()
    for name, value in said.items():
        for inner in (name, *(value if isinstance(value, dict) and name != "registers" else ())):
            assert f"`{inner}`" in documented


def test_a_page_is_a_new_file_of_its_owner(dump: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = dump / "report.html"
    assert told(capfd, "--html", out, dump) == ""
    assert out.read_text().startswith("<!DOCTYPE html>")
    assert out.stat().st_mode & 0o777 == 0o600


def test_a_page_goes_to_standard_output(dump: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert told(capfd, "--html", "-", dump).startswith("<!DOCTYPE html>")


def test_a_page_goes_over_no_other_file(dump: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (dump / "precious").write_text("precious")
    assert cli.main(["report", "--html", str(dump / "precious"), str(dump)]) == 1
    assert "exists already" in capfd.readouterr().err
    assert (dump / "precious").read_text() == "precious"


def test_an_encrypted_dump_is_refused_with_what_decrypts_it(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "vmcore.age").write_bytes(b"age-encryption.org/v1\n")
    assert cli.main(["report", str(tmp_path)]) == 1
    assert "pvdump collect --identity KEY" in capfd.readouterr().err


def test_symbols_and_a_prompt_need_drgn(dump: Path, capfd: pytest.CaptureFixture[str]) -> None:
    capfd.readouterr()
    for words in (["report", "--symbols", "vmlinux", str(dump)], ["drgn", str(dump)]):
        assert cli.main(words) == 1
        error = capfd.readouterr().err
        assert "-m pip install drgn`" in error
        assert error.count("\n") == 1
