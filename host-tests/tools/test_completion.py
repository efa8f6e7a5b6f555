"""The shell's completion in the packages: bash is asked, as at a prompt, and answers by --help."""

import argparse
import shlex
import subprocess
from pathlib import Path

import pytest
from fixtures.parsers import parsers

from pvdump import cli
from pvdump.arguments import file_name, output_name, sink_name
from tools import package

FILES = ["another file", "dump", "folder"]
# Asks the function that completes `pvdump`, as readline does, word by word.
ASK = """\
source "$1"; shift
COMP_WORDS=(pvdump "$@"); COMP_CWORD=$#
_shtab_pvdump
printf '%s\\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "pvdump"
    path.write_text(package.completion("bash"))
    return path


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A current folder with some names."""
    monkeypatch.chdir(tmp_path)
    for name in FILES[:2]:
        Path(name).touch()
    Path(FILES[2]).mkdir()


def complete(script: Path, *words: str) -> list[str]:
    """What bash offers for the last of some words."""
    done = subprocess.run(
        ["bash", "-c", ASK, "bash", script, *words], check=True, capture_output=True, text=True
    )
    return sorted(filter(None, done.stdout.splitlines()))


ALL = list(parsers(package.command_line()))
VALUES = [
    (words, option, action)
    for words, parser in ALL
    for action in parser._actions
    for option in action.option_strings
    if action.nargs != 0
]


@pytest.mark.parametrize(("words", "parser"), ALL, ids=[" ".join(words) for words, _ in ALL])
def test_each_option_is_offered_and_no_other(
    script: Path, words: tuple[str, ...], parser: argparse.ArgumentParser
) -> None:
    options = {option for action in parser._actions for option in action.option_strings}
    assert complete(script, *words, "-") == sorted(options)


def test_each_command_is_offered(script: Path) -> None:
    assert complete(script, "") == sorted(cli.COMMANDS)
    assert complete(script, "dis") == ["disarm"]
    assert complete(script, "blkback", "") == ["attach", "detach", "run", "show"]


@pytest.mark.parametrize(
    ("words", "option", "action"), VALUES, ids=[" ".join((*row[0], row[1])) for row in VALUES]
)
def test_the_values_of_an_option_are_offered(
    script: Path, words: tuple[str, ...], option: str, action: argparse.Action
) -> None:
    expected: list[str] = []
    if action.choices is not None:
        expected = sorted(action.choices)
    elif action.type in (file_name, output_name, sink_name):
        expected = FILES
    assert complete(script, *words, option, "") == expected


@pytest.mark.parametrize(
    "line",
    [
        *("info ", "collect ", "collect dump ", "report ", "drgn ", "drgn dump ", "sign "),
        *("prepare ", "watches show ", "blkback show ", "blkback attach 1 xvdb "),
        *("info --json ", "collect --format elf ", "report --json "),
    ],
)
def test_names_of_files_are_offered_where_one_is_taken(script: Path, line: str) -> None:
    assert complete(script, *shlex.split(line), "") == FILES


def test_words_that_are_refused_are_not_offered(script: Path) -> None:
    """What is offered as a value is taken by the command."""
    for words, option, action in VALUES:
        for value in action.choices or ():
            if len(words) == 1:
                more = ["--print", "--out=x"] if words == ("arm",) else []
                tokens = [*words, *more, option, value]
                rest = {"xenstored": ["--socket=x"], "collect": ["a", "b"]}.get(words[0], [])
                cli.parser(words[0]).parse_args([*tokens, *rest])


def test_zsh_has_the_same_commands_and_options() -> None:
    text = package.completion("zsh")
    for name, (_, line) in cli.COMMANDS.items():
        shown = line.replace("'", "'\"'\"'")
        assert f"\n    {name}:'{shown}'\n" in text
    for words, parser in ALL:
        for action in parser._actions:
            for option in action.option_strings:
                assert option in text, (words, option)
