"""`pvdump list` and `pvdump log`: what was collected."""

import json
import os
import pty
import sys
from pathlib import Path

import pytest
from fixtures.dumpfolders import make

from pvdump import cli
from pvdump.guest import dumps


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "crash"


@pytest.fixture
def config(tmp_path: Path, directory: Path) -> str:
    path = tmp_path / "pvdump.yaml"
    path.write_text(f"directory: {directory}\n")
    return f"--config={path}"


def test_list_shows_a_line_a_dump_the_oldest_first(
    directory: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    make(directory, 2, "a NULL pointer\x1b[2J", complete=False)
    make(directory, 1, "sysrq triggered crash", 3 << 20)
    assert cli.main(["list", config]) == 0
    heads, first, second = capsys.readouterr().out.splitlines()
    assert heads.split() == ["TIME", "RELEASE", "SIZE", "COMPLETE", "FOLDER", "REASON"]
    assert first.startswith("2023-11-14 23:13:20  6.1.0-test  3.0 MiB")
    assert first.endswith(
        f"yes       {directory}/2023-11-14T231320Z-6.1.0-test  sysrq triggered crash"
    )
    assert "  no  " in second
    assert second.endswith(r"a NULL pointer\x1b[2J")


def test_list_as_json_has_all_that_is_known(
    directory: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    dump = make(directory, 1, "why", 1 << 20, complete=False, missing=["the end"])
    assert cli.main(["list", "--json", config]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    assert found.pop("size") >= 1 << 20
    assert found == {
        "folder": str(dump.path),
        "time": "2023-11-14T23:13:20+00:00",
        "release": "6.1.0-test",
        "reason": "why",
        "complete": False,
        "missing": ["the end"],
        "log_only": False,
        "encrypted": False,
        "target": "/dev/xvdb",
        "hooks_failed": [],
        "hooks_pending": True,
    }


def test_without_dumps_list_says_so(
    directory: Path, config: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["list", config]) == 0
    assert capsys.readouterr().out == f"no dumps in {directory}\n"
    assert cli.main(["list", "--json", config]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_log_gives_the_last_dump_s_log_byte_for_byte(
    directory: Path, config: str, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    make(directory, 2)
    make(directory, 1)
    log = b"[ 1.0] caf\xc3\xa9 \x1b[31m\xff\n"
    (dumps.newest(directory).path / dumps.LOG).write_bytes(log)
    assert cli.main(["log", config]) == 0
    assert capfdbinary.readouterr().out == log


def test_on_a_terminal_control_characters_are_escaped(directory: Path, config: str) -> None:
    dump = make(directory, 1)
    (dump.path / dumps.LOG).write_bytes(b"a\tb\x1b[31m\r\x9b1m\xc2\x9b2J\x7f\n")
    pid, terminal = pty.fork()
    if pid == 0:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 - to its end
        os._exit(cli.main(["log", config]))
    said = b""
    while b"\n" not in said:
        said += os.read(terminal, 1024)
    os.waitpid(pid, 0)
    assert said == b"a\tb\\x1b[31m\\x0d\\x9b1m\\xc2\\x9b2J\\x7f\r\n"


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("none", "there is no dump in"),
        ("encrypted", "is encrypted: `pvdump collect --identity FILE --log"),
        ("without", "has no log.txt"),
    ],
)
def test_log_says_in_one_line_why_there_is_none(
    directory: Path,
    config: str,
    capfd: pytest.CaptureFixture[str],
    kind: str,
    message: str,
) -> None:
    if kind != "none":
        dump = make(directory, 1, encrypted=kind == "encrypted")
        (dump.path / dumps.LOG).unlink()
    assert cli.main(["log", config]) == 1
    said = capfd.readouterr()
    assert message in said.err
    assert said.err.count("\n") == 1
