"""image.yaml: a mistake in it is named by file and key."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tools import cache, sdist
from tools.imageconfig import ROOT, Config, ConfigError


@pytest.fixture
def values(tmp_path: Path) -> dict[str, object]:
    (tmp_path / "guest").mkdir()
    (tmp_path / "guest/__init__.py").write_text("")
    (tmp_path / "guest/main.py").write_text("import alone\ndef main(): pass\n")
    (tmp_path / "alone.py").write_text("")
    return {
        "frozen": ["guest", "alone.py"],
        "entry": "guest.main",
        "heap_kib": 512,
        "stack_kib": 64,
        "pool_pages": 32,
        "optimise": "speed",
    }


def read(folder: Path, values: object) -> Config:
    path = folder / "image.yaml"
    path.write_text(yaml.safe_dump(values))
    return Config.read(path)


def test_the_project_s_own_is_good() -> None:
    config = Config.read(ROOT / "image.yaml")
    assert config.modules["pvfw/main.py"] == ROOT / "firmware/pvfw/main.py"


def test_folders_are_packages_and_files_modules(tmp_path: Path, values: dict[str, object]) -> None:
    config = read(tmp_path, values)
    assert list(config.modules) == ["alone.py", "guest/__init__.py", "guest/main.py"]
    assert config.gcc_level() == "-O2"
    assert '-DENTRY_MODULE="guest.main"' in config.defines()


def test_only_what_the_entry_and_its_imports_need_is_frozen(
    tmp_path: Path, values: dict[str, object]
) -> None:
    files = {
        "guest/main.py": "def main():\n    from . import late\n    from .deep import thing\n",
        "guest/late.py": "import alone, sys\n",
        "guest/unused.py": "",
        "guest/deep/__init__.py": "from ..up import name\n",
        "guest/deep/thing.py": "",
        "guest/deep/unused.py": "import guest.unused\n",
        "guest/up.py": "name = 1\n",
    }
    (tmp_path / "guest/deep").mkdir()
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    expected = {"alone.py", "guest/__init__.py", *files} - {"guest/unused.py"}
    assert set(read(tmp_path, values).modules) == expected - {"guest/deep/unused.py"}


def test_what_is_offered_is_frozen_too(tmp_path: Path, values: dict[str, object]) -> None:
    (tmp_path / "guest/main.py").write_text("def main(): pass\n")
    assert "alone.py" not in read(tmp_path, values).modules
    assert "alone.py" in read(tmp_path, {**values, "offered": ["alone"]}).modules


def test_a_crash_kernel_s_image_has_no_shell(tmp_path: Path, values: dict[str, object]) -> None:
    assert read(tmp_path, values).features() == []
    assert read(tmp_path, {**values, "shell": True}).features() == ["-DIMAGE_SHELL=1"]


def test_packages_of_the_index_are_frozen_whole() -> None:
    config = Config.read(ROOT / "pvboot.yaml")
    assert config.name == "pvboot"
    for name in ("argparse.py", "logging/__init__.py", "os/path.py", "unittest.py"):
        assert config.modules[name].is_relative_to(cache.base())
    home = config.modules["cmd.py"].parent
    assert "License: Python" in (home / "micropython_cmd.egg-info/PKG-INFO").read_text()


def test_a_package_with_another_hash_is_refused(
    tmp_path: Path, values: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PVDUMP_CACHE", str(tmp_path / "cache"))
    wrong = "0" * 64
    with pytest.raises(sdist.FetchError, match=f"SHA-256 {wrong} expected, "):
        read(tmp_path, {**values, "packages": [f"micropython-cmd 3.4.0-2 {wrong}"]})


def test_a_module_that_is_no_python_is_named(tmp_path: Path, values: dict[str, object]) -> None:
    (tmp_path / "alone.py").write_text("\ndef :\n")
    with pytest.raises(ConfigError, match=r"alone\.py:2: "):
        read(tmp_path, values)


@pytest.mark.parametrize(
    ("key", "value", "complaint"),
    [
        ("heap_kib", "large", "heap_kib: expected a number from 64 to 2048, found 'large'"),
        ("heap_kib", True, "heap_kib: expected a number from 64 to 2048, found True"),
        ("stack_kib", 4, "stack_kib: expected a number from 16 to 256, found 4"),
        ("pool_pages", 100000, "pool_pages: expected a number from 8 to 256, found 100000"),
        ("optimise", "fast", "optimise: expected size or speed, found 'fast'"),
        ("optimise", ["size"], "optimise: expected size or speed, found ['size']"),
        ("frozen", [], "frozen: expected a list of files and folders, not empty, found []"),
        ("frozen", ["nowhere"], "frozen: no file or folder 'nowhere'"),
        ("frozen", ["guest", "guest"], "frozen: guest/__init__.py is there twice"),
        ("entry", "guest.other", "entry: no module 'guest.other' is frozen"),
        ("entry", "guest/main", "entry: expected the name of a frozen module, such as pvfw.main, "),
        ("heap", 1, "unknown key 'heap'; there are frozen, entry, heap_kib"),
        ("name", "../x", "name: expected the name of the files to make, of small letters, found"),
        ("shell", "please", "shell: expected yes or no, found 'please'"),
        ("offered", "alone", "offered: expected a list of frozen modules, found 'alone'"),
        ("offered", ["nowhere"], "offered: no module 'nowhere' is frozen"),
        ("packages", ["x"], "packages: expected a list of source packages: name, version and SHA-"),
    ],
)
def test_mistakes(
    tmp_path: Path, values: dict[str, object], key: str, value: object, complaint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, {**values, key: value})
    assert str(caught.value).startswith(f"{tmp_path}/image.yaml: {complaint}")


def test_a_missing_key(tmp_path: Path, values: dict[str, object]) -> None:
    del values["entry"]
    with pytest.raises(ConfigError, match="entry is missing: the name of a frozen module"):
        read(tmp_path, values)


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        Config.read(tmp_path / "image.yaml")


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "image.yaml"
    path.write_bytes(b"entry: \xff\n")
    with pytest.raises(ConfigError, match=r"image.yaml: expected UTF-8, .* byte 0xff"):
        Config.read(path)
