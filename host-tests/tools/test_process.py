"""A program that must succeed gives its output, or an error that says what it said."""

import pytest

from tools import Trouble, process


class Broken(Trouble):
    """The error that a caller asks for."""


def test_its_output_is_returned():
    assert process.output(["sh", "-c", "cat; echo err >&2"], given="text") == "text"


def test_a_failure_names_command_exit_code_and_last_lines():
    script = "seq 100; echo the reason >&2; exit 3"
    with pytest.raises(Broken) as caught:
        process.output(["sh", "-c", script], Broken)
    first, *lines = str(caught.value).splitlines()
    assert first == f"sh -c '{script}': exit 3"
    assert lines[-1] == "the reason"
    assert len(lines) == process.TAIL


def test_bytes_that_are_no_text_are_replaced():
    assert process.output(["printf", r"\377"]) == "\N{REPLACEMENT CHARACTER}"
