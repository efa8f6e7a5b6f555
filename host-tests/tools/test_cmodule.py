"""C modules for CPython: compiled once, and again when anything they are made from has changed."""

import pytest

from tools import cmodule


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("PVDUMP_CACHE", str(tmp_path / "cache"))


def build(source, **options):
    return cmodule.build("_pvdump_try", "int answer(void);", source, **options)


SOURCE = "static int answer(void) { return 42; }"


def test_a_module_does_what_its_c_says():
    assert cmodule.load("_pvdump_try", build(SOURCE)).lib.answer() == 42


def test_a_module_is_compiled_once(monkeypatch):
    folder = build(SOURCE)
    monkeypatch.setenv("CC", "false")
    assert build(SOURCE) == folder


def test_a_changed_input_compiles_it_again(tmp_path):
    header = tmp_path / "answer.h"
    options = {"include": [tmp_path], "inputs": [header]}
    source = '#include "answer.h"\nstatic int answer(void) { return ANSWER; }'
    for value in (1, 2):
        header.write_text(f"#define ANSWER {value}\n")
        assert cmodule.load("_pvdump_try", build(source, **options)).lib.answer() == value


def test_an_error_shows_what_the_compiler_said():
    with pytest.raises(cmodule.CompileError, match="nonsense"):
        build("static int answer(void) { return nonsense; }")


def test_nothing_is_left_of_a_module_that_did_not_compile():
    for _ in range(2):
        with pytest.raises(cmodule.CompileError):
            build("nonsense")
