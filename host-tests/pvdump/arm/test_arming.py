"""Arming a guest: what is loaded and recorded, what is refused, what a later look finds."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from fixtures.armingroot import MIB, UUID, ArmingRoot, bzimage
from fixtures.targets import SIZE

from pvdump.arm import arming, kexec, settings
from pvfw import config, superblock
from pvfw.errors import DumpError


def wanted(*targets: str, **others: Any) -> dict[str, Any]:
    values = settings.load(Path("/nowhere/pvdump.yaml"))
    return {**values, "targets": [settings.target(each) for each in targets], **others}


def arm(guest: ArmingRoot, *targets: str, **others: Any) -> dict[str, Any]:
    return arming.arm(wanted(*targets, **others), guest.image, guest.path)


def recorded(guest: ArmingRoot) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((guest.path / arming.ARMED).read_text())
    return found


def loaded(guest: ArmingRoot) -> config.Config:
    return config.decode((guest.path / arming.CONFIGURATION).read_bytes())


def test_the_image_is_loaded_with_the_configuration_and_recorded(guest: ArmingRoot) -> None:
    armed = arm(guest, "xvdb")
    path = guest.path / arming.CONFIGURATION
    assert guest.commands == [
        [
            "kexec",
            "-p",
            "-s",
            str(guest.image),
            f"--initrd={path}",
            "--command-line=pvdump.disk=xvdb",
        ]
    ]
    assert [(each.name, each.uuid) for each in loaded(guest).targets] == [("xvdb", UUID)]
    assert recorded(guest) == json.loads(json.dumps(armed))
    assert armed["call"] == "kexec_file_load"
    assert armed["release"] == os.uname().release
    assert armed["targets"] == [
        {
            "name": "xvdb",
            "disk": "xvdb",
            "uuid": UUID.hex(),
            "extents_sha256": None,
            "room": SIZE - MIB - 4096,
        }
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_without_a_target_the_log_alone_is_armed(guest: ArmingRoot) -> None:
    assert arm(guest)["targets"] == []
    assert guest.commands == [
        ["kexec", "-p", "-s", str(guest.image), f"--initrd={guest.path / arming.CONFIGURATION}"]
    ]


def test_where_the_first_system_call_is_not_there_the_other_one_loads(guest: ArmingRoot) -> None:
    guest.refuses["-s"] = "syscall kexec_file_load not available."
    assert arm(guest)["call"] == "kexec_load"
    assert [words[2] for words in guest.commands] == ["-s", "-c"]


def test_where_neither_loads_the_first_reason_is_told_and_nothing_is_recorded(
    guest: ArmingRoot,
) -> None:
    arm(guest)
    guest.refuses = {"-s": "Cannot allocate memory", "-c": "Operation not permitted"}
    with pytest.raises(DumpError, match="Cannot allocate memory"):
        arm(guest)
    assert not (guest.path / arming.ARMED).exists()


def test_arming_anew_is_always_allowed_and_gives_a_new_nonce(guest: ArmingRoot) -> None:
    first, second = arm(guest, "xvdb"), arm(guest, "xvdb")
    assert first["nonce_sha256"] != second["nonce_sha256"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("sys/kernel/kexec_crash_loaded", None, "this kernel has no crash kernels"),
        ("sys/kernel/kexec_crash_size", "0\n", "no memory is reserved .*crashkernel=4M"),
        ("proc/sys/kernel/kexec_load_disabled", "1\n", "until the next boot"),
        ("pvdump.bin", None, "there is no image .*pvdump.bin"),
        ("pvdump.bin", "text", "no image that kexec loads"),
        (
            "sys/kernel/security/lockdown",
            "none [integrity] confidentiality\n",
            r"lockdown is in force \(integrity\) and .*pvdump.bin is not signed: `pvdump sign`",
        ),
        ("proc/iomem", "00000000-00000000 : System RAM\n", "shows no addresses"),
    ],
)
def test_what_cannot_be_loaded_is_refused_before_anything_is_changed(
    guest: ArmingRoot, name: str, text: str | None, message: str
) -> None:
    if text is None:
        (guest.path / name).unlink()
    else:
        guest.write(name, text)
    with pytest.raises(DumpError, match=message):
        arm(guest, "xvdb")
    assert guest.commands == []
    assert not (guest.path / "run").exists()


def test_under_lockdown_a_signed_image_is_loaded(guest: ArmingRoot) -> None:
    guest.write("sys/kernel/security/lockdown", "none [integrity] confidentiality\n")
    guest.image.write_bytes(bzimage((0x2000, 0x600)))
    assert arm(guest)["call"] == "kexec_file_load"


def test_a_target_that_takes_no_dump_is_refused(guest: ArmingRoot) -> None:
    guest.target("xvdb", state=superblock.COMPLETE)
    with pytest.raises(DumpError, match="xvdb: it holds a dump"):
        arm(guest, "xvdb")
    assert guest.commands == []


def test_of_several_targets_those_that_take_no_dump_are_told_and_left_out(
    guest: ArmingRoot, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [each["name"] for each in arm(guest, "xvdc", "xvdb")["targets"]] == ["xvdb"]
    assert "xvdc: No such file or directory; armed without it" in capsys.readouterr().err


def test_with_none_of_several_targets_each_reason_is_told_in_one_line(guest: ArmingRoot) -> None:
    with pytest.raises(DumpError, match=r"xvdc: No such file .*; .*xvdd: No such file"):
        arm(guest, "xvdc", "xvdd")


# What a later look finds.


def test_what_was_armed_holds_while_nothing_changes(guest: ArmingRoot) -> None:
    arm(guest, "xvdb")
    assert arming.verify(recorded(guest), guest.path) == [SIZE - MIB - 4096]
    assert arming.outdated(recorded(guest), wanted("xvdb"), guest.image) == ""


def changed_memory(guest: ArmingRoot) -> None:
    text = (guest.path / "proc/iomem").read_text()
    guest.write("proc/iomem", text + "100000000-107ffffff : System RAM\n")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda g: g.write("sys/kernel/kexec_crash_loaded", "0\n"), "the image was unloaded"),
        (lambda g: g.write("sys/devices/system/cpu/present", "0-3\n"), "CPUs have changed"),
        (changed_memory, "memory has changed"),
        (lambda g: g.write("run/pvdump/pvdump.conf", "x"), "it is not what was loaded"),
        (lambda g: (g.path / "run/pvdump/pvdump.conf").unlink(), "No such file"),
        (lambda g: g.target("xvdb", uuid=bytes(16)), "xvdb: another target is there"),
        (lambda g: g.target("xvdb", state=superblock.COMPLETE), "xvdb: it holds a dump"),
        (lambda g: g.target("xvdb", size=SIZE // 2), None),
        (lambda g: (g.path / "dev/xvdb").write_bytes(bytes(SIZE)), "xvdb: no pvdump superblock"),
        (lambda g: (g.path / "dev/xvdb").unlink(), "xvdb: No such file"),
    ],
)
def test_what_would_not_be_dumped_any_more_is_seen(
    guest: ArmingRoot, change: Any, message: str | None
) -> None:
    arm(guest, "xvdb")
    change(guest)
    if message is None:
        # Smaller, but a target all the same.
        assert arming.verify(recorded(guest), guest.path) == [SIZE // 2 - MIB - 4096]
        return
    with pytest.raises(DumpError, match=message):
        arming.verify(recorded(guest), guest.path)


@pytest.mark.parametrize(
    ("others", "size", "message"),
    [
        ({"level": 1}, 0x3000, "the settings are others now"),
        ({"then": "halt"}, 0x3000, "the settings are others now"),
        ({}, 0x4000, "pvdump.bin is another image now"),
    ],
)
def test_other_settings_and_another_image_are_seen(
    guest: ArmingRoot, others: dict[str, Any], size: int, message: str
) -> None:
    arm(guest, "xvdb")
    guest.image.write_bytes(bzimage(size=size))
    assert message in arming.outdated(recorded(guest), wanted("xvdb", **others), guest.image)


def test_a_target_that_takes_a_dump_again_is_seen(guest: ArmingRoot) -> None:
    arm(guest, "xvdb", "xvdc")
    assert arming.outdated(recorded(guest), wanted("xvdb", "xvdc"), guest.image) == ""
    guest.target("xvdc", uuid=bytes(16))
    found = arming.outdated(recorded(guest), wanted("xvdb", "xvdc"), guest.image)
    assert found == "xvdc takes a dump now"


def test_too_little_room_is_told(guest: ArmingRoot) -> None:
    armed = arm(guest, "xvdb")
    assert armed["estimate"] is not None
    assert arming.room_problem(armed) == ""
    armed["estimate"] = 64 * MIB
    assert arming.room_problem(armed).startswith("a dump would take 64 MiB now, the targets have")


def test_disarming_unloads_and_leaves_nothing(guest: ArmingRoot) -> None:
    arm(guest, "xvdb")
    assert arming.disarm(guest.path)
    assert guest.commands[-1] == ["kexec", "-p", "-s", "-u"]
    assert list((guest.path / "run/pvdump").iterdir()) == []
    assert not arming.disarm(guest.path)


def test_where_one_system_call_does_not_unload_the_other_one_does(guest: ArmingRoot) -> None:
    arm(guest)
    guest.refuses["-s"] = "syscall kexec_file_load not available."
    assert arming.disarm(guest.path)
    guest.write("sys/kernel/kexec_crash_loaded", "1\n")
    guest.refuses["-c"] = "Operation not permitted"
    with pytest.raises(DumpError, match="kexec_file_load not available"):
        arming.disarm(guest.path)


def test_the_record_of_another_version_is_refused(guest: ArmingRoot) -> None:
    assert arming.load_record(guest.path) == {}
    arm(guest)
    assert set(arming.load_record(guest.path)) == arming.KEYS
    guest.write("run/pvdump/armed.json", '{"time": 1}')
    with pytest.raises(DumpError, match="another version of pvdump armed: `pvdump arm`"):
        arming.load_record(guest.path)


def test_a_target_that_changes_while_it_is_armed_leaves_nothing_loaded(
    guest: ArmingRoot, monkeypatch: pytest.MonkeyPatch
) -> None:
    def moved(found: object) -> None:
        raise DumpError("moved meanwhile")

    monkeypatch.setattr(arming.targets, "stamp", moved)
    with pytest.raises(DumpError, match="moved meanwhile"):
        arm(guest, "xvdb")
    assert not kexec.state(guest.path).loaded
    assert not (guest.path / arming.ARMED).exists()
