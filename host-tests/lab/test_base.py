"""Saved machines in the cache: a damaged one is made anew. QEMU is a fake that writes files."""

import json
import os
from types import SimpleNamespace

import pytest

from lab import LabError, base, xen

MACHINE = SimpleNamespace(arguments=lambda: ["a machine"])


@pytest.fixture
def qemus(tmp_path, monkeypatch):
    """What the QEMUs were started for, in order; `refused` of them cannot restore."""
    started = SimpleNamespace(what=[], refused=0)

    class Qemu:
        def __init__(self, machine, workdir, job, memory, saved=None):
            started.what.append("restore" if saved else "boot")
            if saved and started.refused:
                started.refused -= 1
                raise LabError("QEMU's migration has failed")
            memory.write_text("the memory")
            (workdir / "xen.log").write_text("Xen has booted")
            self.channel = SimpleNamespace(send=lambda line: None, code=lambda name, deadline: 0)

        def booted(self):
            pass

        def save(self, state):
            state.write_text("the state")

        def kill(self):
            pass

    monkeypatch.setenv("PVDUMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(base, "Qemu", Qemu)
    monkeypatch.setattr(base, "_layers", lambda xen: [])
    return started


@pytest.fixture
def guest(monkeypatch):
    """A second base, made from the first one."""
    layer = base.Layer("guest", "its inputs", lambda maker, facts: {"domid": 7})
    monkeypatch.setattr(base, "_layers", lambda xen: [layer])


def test_a_base_in_the_cache_is_used_again(qemus):
    assert base.of(xen.Xen(), MACHINE) == base.of(xen.Xen(), MACHINE)
    assert qemus.what == ["boot"]


def shortened(path):
    os.truncate(path, path.stat().st_size // 2)


def garbled(path):
    path.write_bytes(os.urandom(path.stat().st_size))


def missing(path):
    path.unlink()


@pytest.mark.parametrize(
    ("damage", "name"),
    [
        (shortened, "memory"),
        (missing, "memory"),
        (shortened, "state"),
        (garbled, "state"),
        (missing, "state"),
        (missing, "xen.log"),
        (shortened, "facts.json"),
        (garbled, "facts.json"),
        (missing, "facts.json"),
    ],
)
def test_a_damaged_base_is_made_anew(qemus, damage, name):
    found = base.of(xen.Xen(), MACHINE)
    damage(found.path / name)
    with pytest.warns(UserWarning, match=f"made anew: {found.path.name}: a file is missing or"):
        again = base.of(xen.Xen(), MACHINE)
    assert qemus.what == ["boot", "boot"]
    assert again == found
    assert again.saved.state.read_text() == "the state"


def test_facts_of_another_form_are_damage(qemus):
    found = base.of(xen.Xen(), MACHINE)
    (found.path / "facts.json").write_text(json.dumps(["memory"]))
    with pytest.warns(UserWarning, match="made anew"):
        base.of(xen.Xen(), MACHINE)
    assert qemus.what == ["boot", "boot"]


def test_each_damaged_base_on_the_way_is_made_anew(qemus, guest):
    upper = base.of(xen.Xen(), MACHINE)
    for path in upper.path.parent.glob("oxenstored-*/state"):
        shortened(path)
    with pytest.warns(UserWarning, match="made anew"):
        again = base.of(xen.Xen(), MACHINE)
    assert qemus.what == ["boot", "restore"] * 2
    assert again.facts["domid"] == 7


def test_a_base_that_cannot_be_restored_for_the_next_one_is_made_anew(qemus, guest):
    qemus.refused = 1
    with pytest.warns(UserWarning, match="cannot be restored: QEMU's migration has failed"):
        base.of(xen.Xen(), MACHINE)
    assert qemus.what == ["boot", "restore", "boot", "restore"]


def test_a_disk_belongs_to_the_base_and_each_restore_has_a_copy(qemus, monkeypatch, tmp_path):
    def make(maker, facts):
        path = maker.workdir / "disk.img"
        path.write_text("what the guest wrote")
        maker.devices[path], maker.attached = "/dev/sda", 1
        return {}

    monkeypatch.setattr(xen.Xen, "qdev", lambda self, path: "disk0")
    monkeypatch.setattr(base, "_layers", lambda xen: [base.Layer("guest", "its inputs", make)])
    found = base.of(xen.Xen(), MACHINE)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        ((number, copy),) = found.copy_disks(tmp_path / name).disks
        assert (number, copy) == (0, tmp_path / name / "disk.img")
        assert copy.read_text() == "what the guest wrote"
        copy.write_text("what a test wrote")
        restored = xen.Xen(workdir=tmp_path / name)
        restored.adopt(found)
        assert (restored.devices, restored.attached) == ({copy: "/dev/sda"}, 1)
    (found.path / "disk.img").unlink()
    with pytest.warns(UserWarning, match="made anew"):
        base.of(xen.Xen(), MACHINE)


def test_a_machine_that_can_never_be_restored_is_an_error(qemus, guest):
    qemus.refused = 99
    with (
        pytest.raises(LabError, match="QEMU's migration"),
        pytest.warns(UserWarning, match="made anew"),
    ):
        base.of(xen.Xen(), MACHINE)


def test_a_wrong_guest_is_refused_before_xen_boots(qemus, monkeypatch):
    def refuse(xen):
        raise LabError("guest g: modules: no such module")

    monkeypatch.setattr(base, "_layers", refuse)
    with pytest.raises(LabError, match="guest g"):
        base.of(xen.Xen(), MACHINE)
    assert qemus.what == []
