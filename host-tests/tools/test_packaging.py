"""The wheels: what is in them, that they work where they are installed, and a clean checkout."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import pvdump
from tools import lint

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def snapshot(tree: Path) -> set[str]:
    return {str(path.relative_to(tree)) for path in tree.rglob("*")}


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree's files, as git has them."""
    tree = tmp_path_factory.mktemp("checkout")
    for name in lint.files():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes((ROOT / name).read_bytes())
    return tree


def build(project: Path, out: Path) -> Path:
    """Build a wheel, as a person does, but without an index."""
    command = [*(sys.executable, "-B", "-m", "pip", "wheel", "--quiet", "--no-deps"), "--no-input"]
    command += ["--no-build-isolation", "--no-index", "--wheel-dir", str(out), str(project)]
    environment = {**ENVIRONMENT, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run(command, check=True, env=environment)
    (wheel,) = out.iterdir()
    return wheel


@pytest.fixture(scope="module")
def wheels(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    projects = {"pvdump": checkout, "pvxen": checkout / "host"}
    return {name: build(at, tmp_path_factory.mktemp(name)) for name, at in projects.items()}


def tops(wheel: Path) -> set[str]:
    """The names that a wheel makes importable."""
    with zipfile.ZipFile(wheel) as archive:
        names = {name.split("/")[0] for name in archive.namelist()}
    return {name.split(".")[0] for name in names if not name.endswith(".dist-info")}


def run(wheels: list[Path], folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Run a program where only these wheels, and what they depend on, are installed."""
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(folder)
    command = [sys.executable, "-B", "-c", program]
    environment = {**ENVIRONMENT, "PYTHONPATH": str(folder)}
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=environment, cwd=folder
    )


def test_the_users_wheel_has_no_embedded_xen(wheels: dict[str, Path]) -> None:
    assert tops(wheels["pvdump"]) == {"pvdump", "pvfw", "xenpv"}


def test_the_users_wheel_runs_on_any_python_from_3_9_on_and_needs_pyyaml_alone(
    wheels: dict[str, Path],
) -> None:
    assert wheels["pvdump"].name.endswith("-py3-none-any.whl")
    with zipfile.ZipFile(wheels["pvdump"]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = archive.read(name).decode().splitlines()
    assert "Requires-Python: >=3.9" in metadata
    needed = [line for line in metadata if line.startswith("Requires-Dist")]
    assert [line for line in needed if "extra ==" not in line] == ["Requires-Dist: pyyaml"]


def test_the_users_wheel_has_the_command(wheels: dict[str, Path], tmp_path: Path) -> None:
    program = "import sys; from pvdump.cli import main; sys.exit(main(['--version']))"
    assert run([wheels["pvdump"]], tmp_path, program).stdout == f"pvdump {pvdump.__version__}\n"


def test_the_embedded_xen_has_a_wheel_of_its_own(wheels: dict[str, Path]) -> None:
    assert tops(wheels["pvxen"]) == {"pvxen", "hw", "_pvdump_hw"}


GUEST = """
from pvxen.guest import EmbeddedGuest
from xenpv import hypercall
guest = EmbeddedGuest(seed=3)
import hw
print(hw.now() >= 0, guest.store is not None)
"""


def test_drivers_run_on_the_embedded_xen_where_both_are_installed(
    wheels: dict[str, Path], tmp_path: Path
) -> None:
    done = run(list(wheels.values()), tmp_path, GUEST)
    assert (done.stdout, done.stderr) == ("True True\n", "")


def test_building_them_leaves_nothing_in_the_checkout(
    checkout: Path, wheels: dict[str, Path]
) -> None:
    assert snapshot(checkout) == snapshot_of_git(checkout)


def snapshot_of_git(tree: Path) -> set[str]:
    files = {Path(name) for name in lint.files()}
    return {str(path) for path in files} | {
        str(folder) for path in files for folder in path.parents if folder != Path()
    }
