"""How a Xen starts, without starting one: what is left behind, and a base that is no good."""

from types import SimpleNamespace

import pytest

from lab import LabError, base, dom0, qemu, xen
from lab.base import Base
from tools import cache

KEY = "0123456789abcdef"


def test_a_dom0_that_cannot_be_built_leaves_no_folder(tmp_path, monkeypatch):
    def fail(suite, progress):
        raise LabError("no packages")

    monkeypatch.setattr(dom0, "build", fail)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(LabError, match="no packages"):
        xen.Xen().__enter__()
    assert list(tmp_path.iterdir()) == []


class Qemu:
    """A QEMU that boots, and restores nothing."""

    def __init__(self, machine, workdir, job, memory=None, saved=None):
        if saved:
            raise LabError("QEMU's migration has failed")
        self.channel = SimpleNamespace(send=lambda line: None, code=lambda name, deadline: 0)

    def booted(self):
        pass

    def kill(self):
        pass


@pytest.fixture
def saved(tmp_path, monkeypatch):
    """A base in the cache, and a QEMU that cannot restore it."""

    def make(folder):
        for name in ("memory", "state", "xen.log"):
            (folder / name).write_text("")
        (folder / "facts.json").write_text('{"attached": 0, "disks": []}')

    found = Base(cache.stamped(tmp_path / "bases", "oxenstored", KEY, make))
    files = dom0.Dom0(tmp_path / "xen", tmp_path / "vmlinux", tmp_path / "dom0.cpio")
    monkeypatch.setattr(dom0, "build", lambda suite, progress: files)
    monkeypatch.setattr(base, "of", lambda wanted, machine: found)
    monkeypatch.setattr(xen, "Qemu", Qemu)
    return found


def test_a_base_that_cannot_be_restored_is_removed_and_the_machine_boots(saved, tmp_path):
    machine = xen.Xen(restored=True, workdir=tmp_path / "work")
    with (
        pytest.warns(UserWarning, match="cannot be restored, so one boots: QEMU's migration"),
        machine,
    ):
        assert machine.qemu
    assert not saved.path.exists()


def test_the_code_that_makes_a_base_is_part_of_its_name(monkeypatch):
    before = base._environment()
    monkeypatch.setattr(base, "CODE", [*base.CODE[:-1], "other"])
    assert base._environment() != before


def test_a_machine_s_arguments_name_nothing_of_one_run(tmp_path):
    files = dom0.Dom0(tmp_path / "xen", tmp_path / "vmlinux", tmp_path / "dom0.cpio")
    machines = [qemu.Machine(files, "oxenstored", 2048, cpus) for cpus in (1, 1, 2)]
    one, same, other = [machine.arguments() for machine in machines]
    assert one == same != other


def test_a_machine_of_more_memory_does_not_write_to_all_of_it_at_boot(tmp_path):
    files = dom0.Dom0(tmp_path / "xen", tmp_path / "vmlinux", tmp_path / "dom0.cpio")
    usual = qemu.Machine(files, "oxenstored", 2048, 1).arguments()
    more = qemu.Machine(files, "oxenstored", 2048, 1, 2 * qemu.MEMORY).arguments()
    assert f"{2 * qemu.MEMORY}M" in more
    assert any(word.endswith(" bootscrub=0") for word in more)
    assert not any("bootscrub" in word for word in usual)


def test_a_new_file_with_the_name_of_an_attached_one_is_a_disk_of_its_own(tmp_path, monkeypatch):
    machine, path = xen.Xen(), tmp_path / "disk"
    machine.qemu = SimpleNamespace(plug=lambda *_: None)
    monkeypatch.setattr(machine, "sh", lambda _: f"/dev/sd{'ab'[machine.attached - 1]}\n")
    path.write_bytes(b"")
    assert [machine.attach(path), machine.attach(path)] == ["/dev/sda"] * 2
    with path.open():
        path.unlink()
        path.write_bytes(b"")
        assert machine.attach(path) == "/dev/sdb"
