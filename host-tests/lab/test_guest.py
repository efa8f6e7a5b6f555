"""A guest's YAML: wrong fields are refused by name, right ones become xl's configuration."""

from pathlib import Path

import pytest

from lab import LabError, __main__, packages
from lab.guest import Guest
from lab.root import Root

GUESTS = Path(__file__).resolve().parents[2] / "lab/guests"
PVH = {"name": "g", "type": "pvh", "kernel": "x.elf"}


@pytest.mark.parametrize("path", sorted(GUESTS.glob("*.yaml")), ids=lambda path: path.stem)
def test_each_guest_of_the_lab_is_well_formed(path):
    assert Guest.load(path).name == path.stem


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"memroy": 32}, "'memroy' is not known"),
        ({"type": "pv"}, "type: firmware or hvm or pvh expected, 'pv' found"),
        ({"kernel": None}, "kernel: text expected, None found"),
        ({"memory": "32"}, "memory: a number expected, '32' found"),
        ({"memory": 4}, "memory: a number from 8 on expected, 4 found"),
        ({"vcpus": True}, "vcpus: a number expected, True found"),
        ({"name": "a b"}, "name 'a b'"),
        ({"on_crash": "panic"}, "on_crash: "),
        ({"disks": {"vdev": "xvda"}}, "disks: a list expected, {'vdev': 'xvda'} found"),
        (
            {"disks": [{"vdev": "sda", "size": 1}]},
            "disks[0]: vdev: a name such as xvdb expected, 'sda' found",
        ),
        ({"disks": [{"vdev": "xvda"}]}, "disks[0]: either size (MiB) or file expected"),
        (
            {"disks": [{"vdev": "xvda", "size": 1, "backend": "nbd"}]},
            "disks[0]: backend: blkback or qdisk expected, 'nbd' found",
        ),
        ({"disks": [{"vdev": "xvda", "size": 1}] * 2}, "two have the same vdev"),
        ({"run": "true"}, "run is for kernel: debian and for type: firmware"),
        ({"type": "firmware", "cmdline": "x"}, "type firmware has no cmdline"),
        ({"type": "firmware", "kernel": "debian"}, "type firmware boots an ELF file"),
        ({"files": {"a": "b"}}, "files are for kernel: debian"),
        ({"type": "firmware", "kernel": "disk"}, "type firmware boots an ELF file"),
        ({"kernel": "disk"}, "kernel: disk boots the first of disks, which must be xvda"),
        (
            {"kernel": "disk", "disks": [{"vdev": "xvda", "size": 1}], "cmdline": "x"},
            "kernel: disk has no cmdline",
        ),
        ({"kernel": "debian", "ramdisk": "r"}, "ramdisk is for a kernel that is a file"),
        ({"programs": "/usr/bin/fio"}, "programs: a list expected, '/usr/bin/fio' found"),
        ({"modules": [4]}, "modules[0]: text expected, 4 found"),
        ({"modules": ["ext4"]}, "programs and modules are for kernel: debian"),
        ({"script": "a.py"}, "script is for kernel: pvboot-elf or pvboot-fw"),
        ({"kernel": "pvboot-elf", "imports": ["a"]}, "imports are for a script"),
        (
            {"kernel": "pvboot-elf", "script": "a.py", "ramdisk": "r"},
            "a script stands in ramdisk's place",
        ),
    ],
)
def test_a_wrong_field_is_refused_with_its_name(wrong, named):
    with pytest.raises(LabError) as caught:
        Guest.parse({**PVH, **wrong})
    assert named in str(caught.value)


def test_a_file_that_is_no_mapping_is_refused(tmp_path):
    path = tmp_path / "guest.yaml"
    path.write_text("- pvh\n")
    with pytest.raises(LabError, match="expected fields"):
        Guest.load(path)


def test_overrides_replace_fields_of_the_file():
    guest = Guest.load(GUESTS / "pvh.yaml", name="other", memory=64)
    assert (guest.name, guest.memory, guest.type) == ("other", 64, "pvh")


def test_files_are_relative_to_the_description(tmp_path):
    path = tmp_path / "guest.yaml"
    path.write_text("{type: pvh, kernel: x.elf, disks: [{vdev: xvdb, file: d.img}]}")
    guest = Guest.load(path)
    assert guest.kernel == str(tmp_path / "x.elf")
    assert guest.disks[0].file == tmp_path / "d.img"


def test_a_pvh_guest_s_configuration():
    disks = [{"vdev": "xvdb", "size": 1}, {"vdev": "xvdc", "size": 1, "backend": "qdisk"}]
    guest = Guest.parse({**PVH, "cmdline": 'a "b"', "disks": disks, "extra": {"maxvcpus": 4}})
    lines = guest.config("/f", ["/dev/sda", "/dev/sdb"]).splitlines()
    assert 'type = "pvh"' in lines
    assert 'kernel = "/f/kernel"' in lines
    assert 'cmdline = "a \\"b\\""' in lines
    assert 'on_crash = "preserve"' in lines
    assert "maxvcpus = 4" in lines
    blkback = "format=raw,vdev=xvdb,access=rw,backendtype=phy,target=/dev/sda"
    qdisk = "format=raw,vdev=xvdc,access=rw,backendtype=qdisk,target=/dev/sdb"
    assert f'disk = ["{blkback}", "{qdisk}"]' in lines


def test_a_firmware_guest_takes_hvmloader_s_place():
    guest = Guest.parse({**PVH, "type": "firmware", "run": "#pvdump\n"})
    lines = guest.config("/f", []).splitlines()
    assert 'type = "hvm"' in lines
    assert 'firmware_override = "/f/kernel"' in lines
    assert 'bios_path_override = "/f/module"' in lines
    assert not any(line.startswith(("kernel", "cmdline")) for line in lines)


def test_a_linux_hvm_guest_boots_from_a_disk_of_its_own():
    guest = Guest.parse({**PVH, "type": "hvm", "kernel": "debian"})
    config = guest.config("/f", ["/dev/sdz"])
    assert "vdev=hda" in config
    assert 'hdtype = "ahci"' in config
    assert "\nkernel" not in config


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ({"kernel": "x.elf"}, "kernel: no file "),
        ({"kernel": "there", "ramdisk": "r"}, "ramdisk: no file "),
        ({"kernel": "debian", "files": {"a": "b"}}, "file a: no file "),
        ({"kernel": "there", "disks": [{"vdev": "xvdb", "file": "d"}]}, "disk xvdb: no file "),
    ],
)
def test_a_file_that_is_missing_is_named(tmp_path, names, named):
    (tmp_path / "there").touch()
    guest = Guest.parse({**PVH, **names}, base=tmp_path)
    with pytest.raises(LabError, match=f"guest g: {named}"):
        guest.check()


def test_a_missing_file_is_found_before_a_xen_starts(tmp_path, monkeypatch):
    path = tmp_path / "guest.yaml"
    path.write_text("{type: pvh, kernel: debian, disks: [{vdev: xvdb, file: nothing.img}]}")
    monkeypatch.setattr("sys.argv", ["lab", str(path)])
    monkeypatch.setattr(__main__, "Xen", None)
    with pytest.raises(LabError, match=r"disk xvdb: no file .*nothing\.img"):
        __main__.main()


@pytest.fixture
def unpacked(tmp_path, monkeypatch):
    """Packages with a kernel and few programs, and no Xen."""
    root = tmp_path / "root"
    for name in ("boot/vmlinuz-6.1", "bin/busybox", "sbin/kexec", "usr/bin/fio"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    modules = root / "lib/modules/6.1"
    (modules / "kernel").mkdir(parents=True)
    (modules / "kernel/xen-blkfront.ko").touch()
    (modules / "modules.builtin").touch()
    monkeypatch.setenv("PVDUMP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(packages, "guest", lambda suite, progress: Root(root))
    monkeypatch.setattr(packages, "programs", lambda suite, progress: Root(root))
    monkeypatch.setattr(__main__, "Xen", None)


@pytest.mark.parametrize(
    ("names", "named"),
    [
        ("programs: [/usr/bin/fio, /usr/bin/fi]", "programs: /usr/bin/fi is not in the unpacked"),
        ("programs: [/usr/bin]", "programs: /usr/bin is no file of the unpacked packages"),
        ("modules: [ext5]", "modules: kernel 6.1 has no module 'ext5'"),
    ],
)
def test_a_program_or_module_that_does_not_exist_is_found_before_a_xen_starts(
    tmp_path, monkeypatch, unpacked, names, named
):
    path = tmp_path / "g.yaml"
    path.write_text(f"{{type: pvh, kernel: debian, {names}}}")
    monkeypatch.setattr("sys.argv", ["lab", str(path)])
    with pytest.raises(LabError) as caught:
        __main__.main()
    assert str(caught.value).startswith(f"guest g: {named}")
    assert "\n" not in str(caught.value)


def test_two_guests_of_one_name_are_refused_before_a_xen_starts(tmp_path, monkeypatch):
    path = tmp_path / "guest.yaml"
    path.write_text("{type: pvh, kernel: debian}")
    monkeypatch.setattr("sys.argv", ["lab", str(path), str(path)])
    monkeypatch.setattr(__main__, "Xen", None)
    with pytest.raises(LabError, match="two of the guests have the same name"):
        __main__.main()


def test_an_hvm_guest_with_a_disk_of_its_own_boots_it():
    disks = [{"vdev": "xvda", "size": 64}]
    lines = Guest.parse({**PVH, "type": "hvm", "kernel": "disk", "disks": disks}).config(
        "/f", ["/dev/sda"]
    )
    assert 'boot = "c"' in lines.splitlines()
    # Linux calls it xvda; QEMU, and so SeaBIOS, has it as the first disk of its controller.
    assert "vdev=hda" in lines
    assert "\nkernel" not in lines


def test_a_kernel_of_one_s_own_has_its_ramdisk():
    lines = Guest.parse({**PVH, "ramdisk": "r.img"}).config("/f", []).splitlines()
    assert 'ramdisk = "/f/ramdisk"' in lines
