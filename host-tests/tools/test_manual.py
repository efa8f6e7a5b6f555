"""The man page of the packages says all that --help says; what --help says is true."""

import argparse
import re
import subprocess
from datetime import datetime
from pathlib import Path

import pytest
from fixtures.parsers import parsers

from pvdump import cli
from pvdump.arm import settings
from tools import package
from tools.progress import NULL

ROOT = Path(__file__).resolve().parents[2]
QUOTED = re.compile(r"`([^`]+)`")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-z-]+")
# Of programs that are not pvdump.
OTHERS = {"age": {"--identity", "--decrypt"}}


ALL = list(parsers(package.command_line()))
EACH = pytest.mark.parametrize(
    ("words", "parser"), ALL, ids=[" ".join(("pvdump", *words)) for words, _ in ALL]
)
OPTIONS = {
    words: {option for action in parser._actions for option in action.option_strings}
    for words, parser in ALL
}


def plain(text: str) -> str:
    """A text without what a program that sets it may change: spaces, and kinds of quotes."""
    text = re.sub(
        "[\N{LEFT SINGLE QUOTATION MARK}\N{RIGHT SINGLE QUOTATION MARK}\u00b4]", "'", text
    )
    text = text.replace("`", "'").replace("\N{HYPHEN}", "-").replace("\N{MINUS SIGN}", "-")
    return "".join(text.split())


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The man page as groff sets it, plain()."""
    path = tmp_path_factory.mktemp("manual") / "pvdump.1"
    path.write_text(package.manual(NULL, datetime(2026, 1, 2)))
    # Lines that are long enough for all, so that no word is hyphenated.
    words = ["groff", "-man", "-Tutf8", "-P-c", "-rLL=1000n", "-ww", str(path)]
    done = subprocess.run(words, check=True, capture_output=True, text=True)
    assert done.stderr == ""
    return plain(re.sub("\x1b\\[[0-9;]*m|.\b", "", done.stdout))


@EACH
def test_the_man_page_has_each_text_of_the_help(
    page: str, words: tuple[str, ...], parser: argparse.ArgumentParser
) -> None:
    texts = [parser.description, parser.epilog, " ".join(("pvdump", *words))]
    for action in parser._actions:
        if action.dest != "help":
            texts += [action.help % {"prog": parser.prog} if action.help else None]
            texts += action.option_strings
    missing = [text for text in texts if text and plain(text) not in page]
    assert missing == []


@EACH
def test_the_help_of_each_command_says_what_it_does_and_what_each_option_means(
    words: tuple[str, ...], parser: argparse.ArgumentParser
) -> None:
    assert parser.description or len(words) > 1
    for action in parser._actions:
        if action.option_strings:
            assert action.help, action.option_strings


@EACH
def test_the_help_names_only_commands_and_options_that_there_are(
    words: tuple[str, ...], parser: argparse.ArgumentParser
) -> None:
    text = parser.format_help()
    for line in QUOTED.findall(" ".join(text.split())):
        program, *rest = line.split()
        if program != "pvdump":
            assert set(OPTION.findall(line)) <= OTHERS.get(program, set()), line
            continue
        command = tuple(rest[:2]) if tuple(rest[:2]) in OPTIONS else tuple(rest[:1])
        assert command in OPTIONS, line
        assert set(OPTION.findall(line)) <= OPTIONS[command], line
    outside = set(OPTION.findall(QUOTED.sub("", text)))
    here = [OPTIONS[each] for each in OPTIONS if each[: len(words)] == words]
    assert outside <= {"--help"}.union(*here)


@EACH
def test_the_help_names_only_pages_that_there_are(
    words: tuple[str, ...], parser: argparse.ArgumentParser
) -> None:
    for name in re.findall(r"docs/[a-z-]+\.md", parser.format_help()):
        assert (ROOT / name).is_file(), name


def test_the_defaults_that_the_help_names_are_those_of_the_settings() -> None:
    said = {
        name: match[1]
        for name, setting in settings.OPTIONS.items()
        if (match := re.search(r"\(default: (\w+)\)", setting.help))
    }
    assert set(said) == {"level", "compress", "compress_level", "then"}
    for name, value in said.items():
        default = settings.SETTINGS[name].default
        assert default in (None, settings.SETTINGS[name].read(value))
    (way,) = [action for action in dict(ALL)[("report",)]._actions if action.dest == "vmcore"]
    assert f"else {settings.SETTINGS['directory'].default})" in str(way.help)


def test_the_help_is_printed_on_standard_output(capsys: pytest.CaptureFixture[str]) -> None:
    for words, parser in ALL:
        assert cli.main([*words, "--help"]) == 0
        captured = capsys.readouterr()
        assert captured.err == ""
        if len(words) == 1:
            assert captured.out.split()[:3] == ["usage:", "pvdump", words[0]]
        assert captured.out.startswith(parser.format_usage().split("\n")[0][:20])
