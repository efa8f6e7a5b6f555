"""The cache: a name holds the whole result for its key or is not there, and is bounded."""

import fcntl
import os
import subprocess
import sys
import threading

import pytest

from tools import cache

KEYS = [f"{i:016x}" for i in range(9)]


def fill(text):
    return lambda folder: (folder / "file").write_text(text)


def age(folder, seconds):
    """Make a folder look as if it was used so long ago."""
    stamp = folder / cache.STAMP
    then = stamp.stat().st_mtime - seconds
    os.utime(stamp, (then, then))


@pytest.fixture
def release(monkeypatch):
    """Gives a function that lets go of all folders, as the end of a process does."""
    monkeypatch.setattr(cache, "_held", {})

    def end():
        for descriptor in cache._held.values():
            os.close(descriptor)
        cache._held.clear()

    yield end
    end()


def test_what_is_there_with_the_same_key_is_not_made_again(tmp_path):
    cache.stamped(tmp_path, "name", KEYS[0], fill("first"))
    path = cache.stamped(tmp_path, "name", KEYS[0], fill("second"))
    assert (path / "file").read_text() == "first"


def test_another_key_leaves_what_others_use_as_it_is(tmp_path):
    first = cache.stamped(tmp_path, "name", KEYS[0], fill("first"))
    second = cache.stamped(tmp_path, "name", KEYS[1], fill("second"))
    assert (first / "file").read_text() == "first"
    assert (second / "file").read_text() == "second"


def test_a_maker_that_fails_leaves_nothing(tmp_path):
    def fail(folder):
        (folder / "file").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        cache.stamped(tmp_path, "name", KEYS[0], fail)
    assert [entry.name for entry in tmp_path.iterdir() if entry.is_dir()] == []


def test_what_a_killed_maker_left_goes_with_the_next_one(tmp_path):
    (tmp_path / f".name-{KEYS[0]}.abcd").mkdir()
    path = cache.stamped(tmp_path, "name", KEYS[0], fill("whole"))
    assert [entry for entry in tmp_path.iterdir() if entry.is_dir()] == [path]


def test_a_second_maker_waits_and_finds_it_done(tmp_path):
    began, go_on, made = threading.Event(), threading.Event(), []

    def slow(folder):
        began.set()
        go_on.wait()
        made.append("first")

    def make():
        cache.stamped(tmp_path, "name", KEYS[0], lambda folder: made.append("second"))

    first = threading.Thread(target=cache.stamped, args=(tmp_path, "name", KEYS[0], slow))
    second = threading.Thread(target=make)
    first.start()
    began.wait()
    second.start()
    go_on.set()
    first.join()
    second.join()
    assert made == ["first"]


def test_only_the_folders_used_last_stay(tmp_path, release):
    paths = [cache.stamped(tmp_path, "name", key, fill(key), keep=9) for key in KEYS[:5]]
    other = cache.stamped(tmp_path, "other", KEYS[0], fill("other"))
    for path, seconds in zip(paths, (50, 10, 40, 20, 30), strict=True):
        age(path, seconds)
    release()
    last = cache.stamped(tmp_path, "name", KEYS[5], fill("last"), keep=3)
    assert {path for path in (*paths, last) if path.exists()} == {paths[1], paths[3], last}
    assert other.exists()


def test_giving_a_folder_again_counts_as_a_use(tmp_path, release):
    paths = [cache.stamped(tmp_path, "name", key, fill(key)) for key in KEYS[:3]]
    for path in paths:
        age(path, 10)
    cache.stamped(tmp_path, "name", KEYS[0], fill("again"))
    release()
    cache.stamped(tmp_path, "name", KEYS[3], fill("last"), keep=2)
    assert [path.exists() for path in paths] == [True, False, False]


def test_a_folder_that_a_process_was_given_stays_until_its_end(tmp_path, release):
    script = (
        "import sys; from pathlib import Path; from tools import cache\n"
        "cache.stamped(Path(sys.argv[1]), 'name', sys.argv[2], lambda folder: None)\n"
        "print('has it', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", script, str(tmp_path), KEYS[0]]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, **pipes) as user:
        user.stdout.readline()
        used = tmp_path / f"name-{KEYS[0]}"
        age(used, 100)
        cache.stamped(tmp_path, "name", KEYS[1], fill("newer"), keep=1)
        assert used.exists()
        user.stdin.close()
        user.wait()
        cache.prune(tmp_path, "name", keep=1)
        assert not used.exists()


def test_a_folder_that_is_being_made_stays(tmp_path, release):
    path = cache.stamped(tmp_path, "name", KEYS[0], fill("first"))
    release()
    with cache.locked(path):
        cache.prune(tmp_path, "name", keep=0)
    assert path.exists()


def test_a_lock_whose_file_is_removed_while_it_is_waited_for_is_taken_anew(tmp_path, monkeypatch):
    path, flock, calls = tmp_path / "name", fcntl.flock, []

    def removing(descriptor, how):
        flock(descriptor, how)
        calls.append(how)
        if len(calls) == 1:  # as prune does when it had the lock until now
            path.with_name(".name.lock").unlink()

    monkeypatch.setattr(fcntl, "flock", removing)
    with cache.locked(path):
        assert cache._lock(path, wait=False) is None


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
