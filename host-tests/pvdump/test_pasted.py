"""Names in lines that a person pastes: a shell takes them as they are, a terminal is not harmed."""

import ast
import os
import re
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from fixtures.targets import make, vmcore

import pvdump
from pvdump import cli
from pvdump.guest import dumps, hooks, motd, programs, record, states
from pvdump.streams import pasted
from pvfw import superblock

SOURCES = Path(pvdump.__file__).parent
NAMES = [
    *(b"plain", b"two words", b"a'b\"c", b"$(reboot)", b"`reboot`", b"a;b&c|d", b"~", b"*", b"#"),
    *(b"new\nline", b"\x1b[31mred", b"tab\tbell\a", b"back\\slash\n", b"quote'\n1", b"\xff\xfe"),
    *("\N{RIGHT-TO-LEFT OVERRIDE}gnp".encode(), "\N{GREEK SMALL LETTER ALPHA}".encode()),
]
# What stands before a name in a command.
COMMAND = re.compile(
    r"\b(rm|mkswap|swapoff|swapon|chattr \S+|chmod \S+|chown \S+|--swap|--target|[io]f=)\s?$"
)
# Of these a backtick holds no name that is not quoted: a line of YAML; a whole command.
OTHERS = ("_line", "pip.install")


@pytest.mark.parametrize("name", NAMES)
def test_bash_takes_a_pasted_name_as_it_is(name: bytes) -> None:
    line = pasted(os.fsdecode(name))
    assert line.isprintable()
    words = ["bash", "-c", f"printf %s {line}"]
    assert subprocess.run(words, check=True, capture_output=True).stdout == name


def test_a_name_is_no_option() -> None:
    assert pasted(Path("-rf")) == "./-rf"
    assert pasted("--initrd=/x y") == "'--initrd=/x y'"


def unquoted(source: str) -> Iterator[tuple[int, str]]:
    """Yield line and expression of each value in a command of a text that is not quoted."""
    # A variable that holds what pasted() gave.
    quoted = ("name",) if re.search(r"\bname = .*\bpasted\(", source) else ()
    for text in ast.walk(ast.parse(source)):
        if not isinstance(text, ast.JoinedStr):
            continue
        before = ""
        for part in text.values:
            if isinstance(part, ast.Constant):
                before += str(part.value)
                continue
            assert isinstance(part, ast.FormattedValue)
            value = part.value
            called = ast.unparse(value.func) if isinstance(value, ast.Call) else ""
            in_command = before.count("`") % 2 == 1 or COMMAND.search(before)
            is_name = part.format_spec is None and not isinstance(value, ast.Constant)
            if in_command and is_name and called not in ("pasted", *OTHERS):
                shown = ast.unparse(value)
                if shown not in quoted:
                    yield text.lineno, shown
            before += "x"


def test_each_name_in_a_command_that_is_told_is_quoted() -> None:
    found = [
        f"{path.relative_to(SOURCES)}:{line}: {{{value}}}"
        for path in sorted(SOURCES.rglob("*.py"))
        for line, value in unquoted(path.read_text(encoding="utf-8"))
    ]
    assert found == []


def test_that_check_sees_a_name_that_is_not_quoted() -> None:
    lines = ['f"`pvdump info {path}` tells"', 'f"{path} is damaged: rm {path}"', 'f"{path}: no"']
    assert [len(list(unquoted(line))) for line in lines] == [1, 1, 0]


def test_the_line_that_mends_a_state_has_its_path_quoted() -> None:
    finding = states.found("unsigned", lockdown="integrity", image=Path("/a b/\n"))
    assert finding.mend.endswith(r" $'/a b/\012'")


def test_the_refusal_of_a_dump_can_be_pasted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a b\n$(reboot)"
    make(path, superblock.COMPLETE, vmcore())
    assert cli.main(["prepare", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    command = re.search(r"`(pvdump collect .*) OUT`", error)
    assert command
    done = subprocess.run(
        ["bash", "-c", command[1].replace("pvdump collect", "printf %s")],
        check=True,
        capture_output=True,
    )
    assert os.fsdecode(done.stdout) == str(path)


def test_a_damaged_record_is_named_as_rm_takes_it(tmp_path: Path) -> None:
    path = tmp_path / "a record"
    path.write_text("{")
    with pytest.raises(record.RecordError) as caught:
        record.load(path)
    assert shlex.split(str(caught.value).rpartition(": ")[2]) == ["rm", str(path)]


def test_a_hook_that_is_not_run_is_named_as_chmod_takes_it(tmp_path: Path) -> None:
    folder = tmp_path / "hooks of mine"
    folder.mkdir()
    (folder / "hook").write_text("#!/bin/sh\n")
    (folder / "hook").chmod(0o666)
    (line,) = hooks.run(folder, tmp_path, True)
    assert line.endswith(f"chown root '{folder}/hook'; chmod go-w '{folder}/hook'")


def test_a_program_that_fails_is_shown_as_a_shell_takes_it() -> None:
    with pytest.raises(programs.ProgramError, match=r"^pvdump-none \$'a\\012b' 'c d': there is"):
        programs.run(["pvdump-none", "a\nb", "c d"])


def test_whoever_logs_in_sees_one_line(tmp_path: Path) -> None:
    facts = dumps.Facts(dumps.FORMAT, "x", "", 0, 0, 0, "6.1", "vmcore", True)
    motd.write(tmp_path, dumps.Dump(Path("/crash\n\x1b[2J"), facts))
    text = (tmp_path / motd.MOTD).read_text()
    assert text.count("\n") == 1
    assert text[:-1].isprintable()
