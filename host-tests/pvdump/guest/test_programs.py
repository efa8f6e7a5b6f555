"""Programs of the system are run without a shell, and their failures are one line."""

from pathlib import Path

import pytest

from pvdump.guest import programs
from pvdump.guest.programs import ProgramError


def program(folder: Path, text: str) -> str:
    path = folder / "prog"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


def test_output_of_a_program_is_given(tmp_path: Path) -> None:
    assert programs.run([program(tmp_path, 'echo "$1"'), "a b; $(c)"]) == "a b; $(c)\n"


def test_failure_has_the_last_line_that_the_program_wrote(tmp_path: Path) -> None:
    name = program(tmp_path, "echo out; echo first >&2; echo last >&2; exit 3")
    with pytest.raises(ProgramError, match=r"prog -x: last$"):
        programs.run([name, "-x"])


def test_failure_without_a_line_has_the_exit_code(tmp_path: Path) -> None:
    with pytest.raises(ProgramError, match="it ended with 3"):
        programs.run([program(tmp_path, "exit 3")])


def test_missing_program_is_named() -> None:
    with pytest.raises(ProgramError, match="there is no program pvdump-none"):
        programs.run(["pvdump-none", "-x"])


def test_file_that_cannot_be_executed_is_named(tmp_path: Path) -> None:
    path = tmp_path / "prog"
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    with pytest.raises(ProgramError, match="Exec format error"):
        programs.run([str(path)])


def test_program_has_no_input(tmp_path: Path) -> None:
    assert programs.run([program(tmp_path, "cat")]) == ""


def test_programs_for_root_are_found_with_any_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert programs.find("sh") is not None
