"""The cache: a name holds the whole result for its key, or is not there."""

import pytest

from tools import cache


def fill(text):
    return lambda folder: (folder / "file").write_text(text)


def test_what_is_there_with_the_same_key_is_not_made_again(tmp_path):
    path = tmp_path / "name"
    cache.stamped(path, "key", fill("first"))
    cache.stamped(path, "key", fill("second"))
    assert (path / "file").read_text() == "first"


def test_another_key_makes_it_anew(tmp_path):
    path = tmp_path / "name"
    cache.stamped(path, "key", fill("first"))
    cache.stamped(path, "other", fill("second"))
    assert (path / "file").read_text() == "second"


def test_a_maker_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "name"
    cache.stamped(path, "key", fill("first"))

    def fail(folder):
        (folder / "file").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.stamped(path, "other", fail)
    assert (path / "file").read_text() == "first"
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == ["name"]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"PVDUMP_CACHE": "/a", "XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/a"),
        ({"XDG_CACHE_HOME": "/b", "HOME": "/c"}, "/b/pvdump"),
        ({"HOME": "/c"}, "/c/.cache/pvdump"),
    ],
)
def test_where_the_cache_is(monkeypatch, environment, expected):
    for name in ("PVDUMP_CACHE", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert str(cache.base()) == expected
