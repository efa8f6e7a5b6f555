"""`pvdump script`: the folder that it makes, and what it refuses."""

import re
import shlex
import shutil
import stat
from pathlib import Path

import pytest
from fixtures.typist import Typist, image_of

from pvdump import cli
from pvdump.script import image, text
from pvfw.shell.sections import CONTENT_MAX
from tools.image import build
from tools.imageconfig import ROOT

SCRIPT = "print('the name', await store.read('name'))\n"
ELF = b"\x7fELF and more"


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder with a script, a module, an image and a disk."""
    monkeypatch.chdir(tmp_path)
    Path("my script.py").write_text(SCRIPT)
    Path("one.py").write_text("x = 1\n")
    Path("pvboot.elf").write_bytes(ELF)
    Path("disk").write_bytes(bytes(1024))
    return tmp_path


@pytest.fixture
def make(place, capsys):
    """Runs the command. Returns (exit code, standard output, standard error)."""

    def of(*words):
        code = cli.main(["script", *words])
        return code, *capsys.readouterr()

    return of


GOOD = ("my script.py", "-o", "guest/", "--image", "pvboot.elf")


def settings(path):
    """The settings of a configuration, by name."""
    found = re.findall(r"^(\w+) = (.*)$", path.read_text(), re.MULTILINE)
    return {name: value.strip('"') for name, value in found}


def test_the_folder_has_what_xl_needs(make, place):
    code, out, err = make(*GOOD)
    assert (code, err) == (0, "")
    made = place / "guest"
    assert sorted(path.name for path in made.iterdir()) == ["pvboot.elf", "script.py", "xl.cfg"]
    assert (made / "pvboot.elf").read_bytes() == ELF
    assert (made / "script.py").read_text() == "#!pvboot\n" + SCRIPT
    assert settings(made / "xl.cfg") == {
        "name": "my-script",
        "memory": "64",
        "vcpus": "1",
        "type": "pvh",
        "kernel": f"{made}/pvboot.elf",
        "ramdisk": f"{made}/script.py",
        "cmdline": "pvdump.run=script",
        **dict.fromkeys(("on_poweroff", "on_reboot", "on_crash"), "destroy"),
    }
    last = out.splitlines()[-1]
    assert last == f"start it in dom0: xl create -c {made}/xl.cfg"


def test_the_line_that_is_told_can_be_pasted(make, place):
    _, out, _ = make("my script.py", "-o", "a 'guest", "--image", "pvboot.elf")
    words = shlex.split(out.splitlines()[-1].partition(": ")[2])
    assert words == ["xl", "create", "-c", f"{place}/a 'guest/xl.cfg"]


def test_hvmloader_s_place_has_options_and_script_in_one_text(make, place):
    shutil.copy("pvboot.elf", "pvboot.fw")
    code, out, _ = make("my script.py", "-o", "guest", "--image", "pvboot.fw", "--firmware")
    assert code == 0
    assert "HVM guest with pvboot in hvmloader's place" in out
    made = place / "guest"
    assert (made / "script.txt").read_text() == ("#pvdump\npvdump.run=script\n#!pvboot\n" + SCRIPT)
    found = settings(made / "xl.cfg")
    assert found["type"] == "hvm"
    assert found["firmware_override"] == f"{made}/pvboot.fw"
    assert found["bios_path_override"] == f"{made}/script.txt"
    assert "cmdline" not in found


def test_modules_disks_name_and_memory_are_taken(make, place):
    Path("my script.py").write_text("import one\n")
    disks = ("--disk", "disk", "--disk", str(place / "disk"))
    code, out, _ = make(*GOOD, "--with", "one.py", *disks, "--name", "n", "--memory", "128")
    assert code == 0
    assert "the PVH guest n, 128 MiB, the script and 1 modules" in out
    whole = (place / "guest/script.py").read_bytes()
    assert whole == text.compose(b"import one\n", {"one.py": b"x = 1\n"})
    each = f"format=raw,vdev=xvd%s,access=rw,target={place}/disk"
    wanted = ", ".join(f'"{each % letter}"' for letter in "ab")
    assert f"disk = [{wanted}]\n" in (place / "guest/xl.cfg").read_text()


def test_a_name_is_quoted_as_xl_reads_it(make, place):
    Path('a"b\\c').mkdir()
    code, _, _ = make("my script.py", "-o", 'a"b\\c/guest', "--image", "pvboot.elf")
    assert code == 0
    config = (place / 'a"b\\c/guest/xl.cfg').read_text()
    assert f'kernel = "{place}/a\\"b\\\\c/guest/pvboot.elf"\n' in config


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_nothing_is_overwritten(make, place, there):
    guest = place / "guest"
    if there == "folder":
        guest.mkdir()
    elif there == "file":
        guest.write_text("mine")
    else:
        guest.symlink_to("nowhere")
    before = guest.lstat()
    code, out, err = make(*GOOD[:2], "guest", *GOOD[3:])
    assert (code, out) == (1, "")
    assert "guest exists already: name another folder, or remove it" in err
    assert guest.lstat().st_mtime_ns == before.st_mtime_ns
    assert stat.S_IFMT(guest.lstat().st_mode) == stat.S_IFMT(before.st_mode)


@pytest.mark.parametrize("number", range(3))
def test_a_folder_that_cannot_be_made_whole_is_not_left(make, place, monkeypatch, number):
    write, left = Path.write_bytes, [number]

    def full(path, data):
        if path.parent.name == "guest":
            left[0] -= 1
            if left[0] < 0:
                raise OSError(28, "No space left on device", str(path))
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    code, _, err = make(*GOOD)
    assert code == 1
    assert err.count("\n") == 1
    assert "No space left on device" in err
    assert not (place / "guest").exists()


def test_what_the_script_may_not_have_is_told_with_its_place(make, place):
    Path("my script.py").write_text("import one\nx = 1.5\ny = 1j\n")
    code, _, err = make(*GOOD, "--with", "one.py")
    assert code == 1
    assert err == "pvdump script: my script.py:2: 1.5: there are no floats (and 1 more)\n"
    Path("my script.py").write_text("import one\n")
    Path("one.py").write_text("\nx = nobody\n")
    assert make(*GOOD, "--with", "one.py")[2] == (
        "pvdump script: one.py:2: nothing has the name nobody\n"
    )
    assert not (place / "guest").exists()


def test_what_cannot_be_is_one_line(make, place):
    Path("large.py").write_bytes(b"#" * (CONTENT_MAX + 1))
    for words, part in (
        (("large.py", *GOOD[1:]), "large.py has more than 4 MiB"),
        (("my script.py", "-o", "a\nb", *GOOD[3:]), "xl takes no name with such a character"),
        ((*GOOD, *["--disk", "disk"] * 17), "17 disks; 16 at most"),
        ((*GOOD[:3], "--image", "disk"), "disk is no image that xl starts"),
    ):
        code, _, err = make(*words)
        assert (code, err.count("\n")) == (1, 1), err
        assert part in err
    assert not (place / "guest").exists()


def test_the_installed_image_is_found(make, place, monkeypatch):
    monkeypatch.setattr(image, "PLACES", (place / "none", place))
    assert make(*GOOD[:3])[0] == 0
    assert (place / "guest/pvboot.elf").read_bytes() == ELF
    monkeypatch.setattr(image, "PLACES", (place / "none",))
    code, _, err = make("my script.py", "-o", "other")
    assert code == 1
    assert "none/pvboot.elf: install pvdump, or name it with --image" in err


def test_what_is_made_runs_in_the_image(make, place, tmp_path_factory):
    built = build(tmp_path_factory.mktemp("image"), config=ROOT / "pvboot.yaml")
    for door, file in (("pvh", "script.py"), ("fw", "script.txt")):
        elf = built.elf if door == "pvh" else built.fw
        more = ["--firmware"] if door == "fw" else []
        assert make("my script.py", "-o", door, "--image", str(elf), *more)[0] == 0
        whole = (place / door / file).read_bytes()
        line = settings(place / door / "xl.cfg").get("cmdline", "").encode()
        typist = Typist(image_of(built), [], cmdline=line, modules=((1 << 24, len(whole)),))
        typist.guest.machine.ram[1 << 24 : (1 << 24) + len(whole)] = whole
        assert "\nthe name b'guest'\n" in typist.run().said
