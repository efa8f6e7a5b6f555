"""Entries of the Boot Loader Specification, type 1: as kernel-install and Fedora write them."""

import pytest
from fixtures.bootdisks import MIB, ext, fat, gpt, run, volumes
from fixtures.bootfiles import grubenv, kernels, shown

from pvfw.boot import sources
from pvfw.boot.bls import compare, counted, matches
from pvfw.boot.volumes import ESP, XBOOTLDR

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
MACHINE = "4f3a1c0de5b64f0e9d0c2a7b8e9f1a2b"


def entry(version, title="Fedora Linux", **more):
    lines = [f"title {title}", f"version {version}", f"linux /vmlinuz-{version}"]
    lines += [f"initrd /initrd.img-{version}", "options root=UUID=1 ro"]
    lines += [f"{key.replace('_', '-')} {value}" for key, value in more.items()]
    return "\n".join(lines).encode() + b"\n"


def look(*disks):
    found, notes = volumes(*disks)
    return run(sources.look(found, notes)), notes.lines


def boot(folder, files, kind=LINUX):
    return gpt(folder, [(kind, ext(folder, files, "-t", "ext4", size=16 * MIB))])


def versions(menu):
    return [e.kernel.path.decode().removeprefix("/vmlinuz-") for e in menu.entries]


@pytest.mark.usefixtures("machine")
def test_fedora_s_entries_come_newest_first(tmp_path):
    names = ("6.8.5-301.fc40.x86_64", "6.10.2-200.fc40.x86_64", "6.9.12-200.fc40.x86_64")
    files = kernels(*names, folder=".")
    for name in names:
        title = f"Fedora Linux ({name}) 40 (Cloud Edition)"
        files[f"loader/entries/{MACHINE}-{name}.conf"] = entry(
            name, title, grub_users="$grub_users", grub_arg="--unrestricted", grub_class="fedora"
        )
    menu, notes = look(boot(tmp_path, files))
    assert notes == []
    assert versions(menu) == [names[1], names[2], names[0]]
    assert shown(menu)[0] == (
        *(f"Fedora Linux ({names[1]}) 40 (Cloud Edition)", f"/vmlinuz-{names[1]}".encode()),
        *([f"/initrd.img-{names[1]}".encode()], b"root=UUID=1 ro"),
    )
    assert menu.entries[0].id == f"{MACHINE}-{names[1]}"
    assert menu.entries[0].source.startswith("BLS xvda1:/loader/entries/4f3a")
    assert (menu.default, menu.timeout) == (0, None)


@pytest.mark.usefixtures("machine")
def test_what_grubby_saved_is_the_default_and_variables_have_values(tmp_path):
    files = kernels("1", "2", folder=".")
    for name in ("1", "2"):
        text = entry(name).replace(b"options root=UUID=1 ro", b"options $kernelopts ${tuned} x=$1")
        text = text.replace(b".img-" + name.encode(), b".img-" + name.encode() + b" $tuned_initrd")
        files[f"loader/entries/{name}.conf"] = text
    files["grub2/grubenv"] = grubenv(saved_entry="1", tuned="t=1")
    files["grub2/grub.cfg"] = (
        b"load_env\nif [ -z \"${kernelopts}\" ]; then set kernelopts='root=/dev/x ro'; fi\nblscfg\n"
    )
    menu, notes = look(boot(tmp_path, files))
    assert notes == []
    assert versions(menu) == ["2", "1"]
    assert menu.default == 1
    assert [e.options for e in menu.entries] == [b"root=/dev/x ro t=1 x="] * 2
    assert [len(e.initrds) for e in menu.entries] == [1, 1]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("conf", "default", "timeout"),
    [
        ("timeout 7\ndefault b*\n", 1, 7),
        ("default *a.conf\ntimeout menu-hidden\n", 0, 0),
        ("default nothing\n", 0, None),
    ],
)
def test_systemd_boot_s_settings_count(conf, default, timeout, tmp_path):
    files = {f"{MACHINE}/{n}/linux": b"kernel" for n in "12"}
    for name, n in (("a", "2"), ("b", "1")):
        files[f"loader/entries/{name}.conf"] = (
            f"title Debian\nversion {n}\nsort-key debian\nlinux /{MACHINE}/{n}/linux\noptions {n}\n"
        ).encode()
    files["loader/loader.conf"] = conf.encode()
    disk = gpt(tmp_path, [(ESP[0], fat(tmp_path, files, "-F", "32", size=40 * MIB))])
    menu, notes = look(disk)
    assert [e.name for e in menu.entries] == ["Debian (2)", "Debian (1)"]
    assert (menu.default, menu.timeout) == (default, timeout)
    assert len(notes) == (conf == "default nothing\n")


@pytest.mark.usefixtures("machine")
def test_xbootldr_comes_first_then_the_esp_then_others(tmp_path):
    parts = []
    for kind, name in ((LINUX, "c"), (ESP[0], "b"), (XBOOTLDR[0], "a")):
        folder = tmp_path / name
        folder.mkdir()
        files = {f"vmlinuz-{name}": b"x", f"loader/entries/{name}.conf": entry(name)}
        if kind == LINUX:
            parts.append((kind, ext(folder, files, "-t", "ext4", size=8 * MIB)))
        else:
            parts.append((kind, fat(folder, files, "-F", "16", size=16 * MIB)))
    found, _ = volumes(gpt(tmp_path, parts))
    assert [each.name for each in found.ordered()] == ["xvda3", "xvda2", "xvda1"]
    menu, _ = look(gpt(tmp_path, parts))
    # Their order is that of their versions, wherever they are.
    assert versions(menu) == ["c", "b", "a"]
    assert [e.kernel.volume.name for e in menu.entries] == ["xvda1", "xvda2", "xvda3"]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("folder", "where", "written"),
    [
        ("boot/loader/entries", "boot/vmlinuz-1", "/boot/vmlinuz-1"),
        ("boot/loader/entries", f"boot/{MACHINE}/1/linux", f"/{MACHINE}/1/linux"),
        ("loader/entries", "vmlinuz-1", "/boot/vmlinuz-1"),
        ("loader/entries", "vmlinuz-1", "vmlinuz-1"),
    ],
)
def test_paths_are_of_the_volume_or_of_the_folder_that_loader_is_in(
    folder, where, written, tmp_path
):
    initrd = where.replace("vmlinuz", "initrd").replace("linux", "initrd")
    text = f"title x\nlinux {written}\ninitrd {written.replace('vmlinuz', 'initrd')}\n"
    text = text.replace("initrd " + written, "initrd " + written.replace("linux", "initrd"))
    files = {f"{folder}/x.conf": text.encode(), where: b"kernel", initrd: b"initrd"}
    menu, notes = look(boot(tmp_path, files))
    assert notes == []
    (entry,) = menu.entries
    file, _, size = run(entry.kernel.open())
    assert run(file.read(0, size)) == b"kernel"
    file, _, size = run(entry.initrds[0].open())
    assert run(file.read(0, size)) == b"initrd"


@pytest.mark.usefixtures("machine")
def test_what_makes_no_entry_is_told(tmp_path):
    files = {
        "loader/entries/arm.conf": entry("1", architecture="aa64"),
        "loader/entries/efi.conf": b"title x\nefi /EFI/x.efi\n",
        "loader/entries/gone.conf": entry("2"),
        "loader/entries/good.conf": entry("1", architecture="x64"),
        "loader/entries/large.conf": entry("1") + b"#" * 300000,
        "loader/entries/long.conf": entry("1") + b"options " + b"y" * 5000,
        "loader/entries/many.conf": entry("1") + b"initrd /x\n" * 20,
        "loader/entries/README": b"",
        **kernels("1", folder="."),
    }
    menu, notes = look(boot(tmp_path, files))
    assert [e.id for e in menu.entries] == ["good"]
    said = [line.partition("passed over: ")[2] for line in notes]
    assert said[0] == "it is for aa64"
    assert said[1] == "it has no line that begins with linux"
    assert said[2] == "there is no kernel /vmlinuz-2"
    assert "at most 262144 are read" in said[3]
    assert said[4].endswith("a command line of 5015 bytes, at most 4096")
    assert said[5].endswith("21 initrds, at most 16")
    assert len(notes) == 6


class Item:
    def __init__(self, id, sort_key=b"", machine_id=b"", version=b"", left=None, tried=0):
        self.id, self.sort_key, self.machine_id, self.version = id, sort_key, machine_id, version
        self.left, self.tried = left, tried


def test_the_order_is_the_specification_s():
    order = [
        Item(b"z", b"debian", b"1", b"6.10"),
        Item(b"y", b"debian", b"1", b"6.9"),
        Item(b"x", b"debian", b"2", b"6.11"),
        Item(b"a", b"fedora", b"1", b"7"),
        Item(b"linux-6.10"),
        Item(b"linux-6.9", left=3),
        Item(b"linux-6.9", left=2),
        Item(b"linux-6.9", left=2, tried=1),
        Item(b"linux-7", b"debian", b"1", b"9", left=0),
    ]
    for i, a in enumerate(order):
        for j, b in enumerate(order):
            found = compare(a, b)
            assert (found > 0) - (found < 0) == (i > j) - (i < j), (i, j)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        (b"linux-6.1", (b"linux-6.1", None, 0)),
        (b"linux-6.1+3", (b"linux-6.1", 3, 0)),
        (b"linux-6.1+0-2", (b"linux-6.1", 0, 2)),
        (b"a+b+1-10", (b"a+b", 1, 10)),
        (b"6.12+deb13-amd64", (b"6.12+deb13-amd64", None, 0)),
        (b"x+00000000000000000000000001", (b"x", 1, 0)),
        (b"x+99999999999999999999999999", (b"x+99999999999999999999999999", None, 0)),
    ],
)
def test_counters_are_no_part_of_a_name(name, found):
    assert counted(name) == found


@pytest.mark.parametrize(
    ("pattern", "name", "is_match"),
    [
        (b"*", b"", True),
        (b"a*c", b"abbc", True),
        (b"a?c", b"abc", True),
        (b"a?c", b"ac", False),
        (b"*-6.1*", b"x-6.10", True),
        (b"a", b"ab", False),
        (b"**a", b"ba", True),
        (b"*a*b*c*d*e*f*g*h*i*j", b"a" * 200, False),
    ],
)
def test_patterns(pattern, name, is_match):
    assert matches(pattern, name) == is_match
