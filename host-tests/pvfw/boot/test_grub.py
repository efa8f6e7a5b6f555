"""grub.cfg: what grub-mkconfig makes, and what Ubuntu's and Fedora's files have besides."""

import re

import pytest
from fixtures.bootdisks import MIB, ext, gpt, run, volumes
from fixtures.bootfiles import NEW, OLD, UUID, grub_mkconfig, grubenv, kernels, shown

from pvfw.boot import grub, sources

LINUX = "0fc63daf-8483-4772-8e79-3d69d8477de4"
OPTIONS = b"root=/dev/xvda1 ro console=tty0 console=ttyS0,115200 earlyprintk=ttyS0,115200 quiet"
SAVED = f"gnulinux-advanced-{UUID}>gnulinux-{OLD}-advanced-{UUID}"


@pytest.fixture(scope="module")
def debian(tmp_path_factory):
    return grub_mkconfig(tmp_path_factory.mktemp("grub"))


def disk(folder, files, **options):
    words = ("-t", "ext4", "-U", options.get("uuid", UUID), "-L", options.get("label", "root"))
    return gpt(folder, [(LINUX, ext(folder, files, *words, size=16 * MIB))])


def look(*disks):
    found, notes = volumes(*disks)
    return run(grub.look(found, notes)), notes.lines


@pytest.mark.usefixtures("machine")
def test_the_entries_of_debian_s_are_those_that_grub_shows(debian, tmp_path):
    files = {**kernels(OLD, NEW), "boot/grub/grub.cfg": debian, "boot/grub/grubenv": grubenv()}
    menu, notes = look(disk(tmp_path, files))
    single = OPTIONS.replace(b" console", b" single dis_ucode_ldr console", 1).replace(
        b" quiet", b""
    )
    names = [f"Debian GNU/Linux, with Linux {v}" for v in (NEW, OLD)]
    assert [(e.name, e.options) for e in menu.entries] == [
        ("Debian GNU/Linux", OPTIONS),
        (names[0], OPTIONS),
        (f"{names[0]} (recovery mode)", single),
        (names[1], OPTIONS),
        (f"{names[1]} (recovery mode)", single),
    ]
    versions = (NEW, NEW, NEW, OLD, OLD)
    assert [e.kernel.path for e in menu.entries] == [
        f"/boot/vmlinuz-{v}".encode() for v in versions
    ]
    assert [[p.path for p in e.initrds] for e in menu.entries] == [
        [f"/boot/initrd.img-{v}".encode()] for v in versions
    ]
    assert {e.source for e in menu.entries} == {"grub.cfg xvda1:/boot/grub/grub.cfg"}
    assert menu.entries[3].id == SAVED
    assert (menu.default, menu.timeout, notes) == (0, 5, [])
    for entry in menu.entries:
        file, offset, size = run(entry.kernel.open())
        assert run(file.read(offset, size)).startswith(b"kernel 6.12.")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("saved", "default"),
    [(SAVED, 3), ("0", 0), ("1>2", 3), ("1", 1), ("Debian GNU/Linux", 0), (f"1>{SAVED[-76:]}", 0)],
)
def test_the_saved_entry_is_the_default(saved, default, debian, tmp_path):
    env = grubenv(saved_entry=saved)
    files = {**kernels(OLD, NEW), "boot/grub/grub.cfg": debian, "boot/grub/grubenv": env}
    menu, notes = look(disk(tmp_path, files))
    assert menu.default == default
    is_there = default or saved in ("0", "Debian GNU/Linux")
    assert len(notes) == (0 if is_there else 1), notes


@pytest.mark.usefixtures("machine")
def test_what_is_to_be_booted_once_is_passed_over_and_told(debian, tmp_path):
    env = grubenv(saved_entry="0", next_entry=SAVED)
    files = {**kernels(OLD, NEW), "boot/grub/grub.cfg": debian, "boot/grub/grubenv": env}
    menu, notes = look(disk(tmp_path, files))
    assert menu.default == 0
    assert [line for line in notes if line.startswith("next_entry=gnulinux-advanced-")]


@pytest.mark.usefixtures("machine")
def test_kernels_are_found_on_a_volume_of_their_own(debian, tmp_path):
    boot = {**kernels(OLD, NEW, folder="."), "grub/grub.cfg": debian.replace(b"/boot/", b"/")}
    (tmp_path / "other").mkdir()
    other = disk(
        tmp_path / "other", {"file": b"x"}, uuid=UUID[::-1].replace("-", "a")[:8] + UUID[8:]
    )
    menu, notes = look(other, disk(tmp_path, boot))
    assert len(menu.entries) == 5
    assert {e.kernel.volume.name for e in menu.entries} == {"xvdb1"}
    assert notes == []


@pytest.mark.usefixtures("machine")
def test_an_entry_whose_kernel_is_gone_is_passed_over(debian, tmp_path):
    menu, notes = look(disk(tmp_path, {**kernels(NEW), "boot/grub/grub.cfg": debian}))
    assert len(menu.entries) == 3
    assert any(f"has no kernel /boot/vmlinuz-{OLD}" in line for line in notes)


# As Ubuntu's cloud images have it, whose kernels first try without an initrd.
UBUNTU = """
function gfxmode { set gfxpayload="${1}"; if [ "${1}" = "keep" ]; then set vt_handoff=vt.handoff=7
  else set vt_handoff=; fi }
if [ "${recordfail}" != 1 ]; then
  if [ -e ${prefix}/gfxblacklist.txt ]; then
    if [ ${pci_class} != 0x030000 ]; then set linux_gfx_mode=keep; else set linux_gfx_mode=text; fi
  else set linux_gfx_mode=keep
  fi
else set linux_gfx_mode=text
fi
function initrdfail {
    if [ -n "${have_grubenv}" ]; then if [ -n "${partuuid}" ]; then
      if [ -z "${initrdfail}" ]; then
        set initrdfail=1
        if [ -n "${boot_once}" ]; then set prev_entry="${default}"; save_env prev_entry; fi
      fi
      save_env initrdfail
    fi; fi
}
menuentry 'Ubuntu' --class ubuntu $menuentry_id_option 'simple' {
    recordfail
    gfxmode $linux_gfx_mode
    search --no-floppy --fs-uuid --set=root UUID
    if [ "${initrdfail}" = 1 ]; then
      linux    /boot/vmlinuz-1 root=PARTUUID=12 ro  console=ttyS0 $vt_handoff
      initrd    /boot/initrd.img-1
    else
      linux    /boot/vmlinuz-1 root=PARTUUID=12 ro  console=ttyS0 panic=-1
      #Dont attempt to boot with an initrd
    fi
    initrdfail
}
""".replace("UUID\n", UUID + "\n")


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize("failed", [False, True])
def test_ubuntu_s_question_whether_the_initrd_is_needed_is_answered(failed, tmp_path):
    head = "if [ -s $prefix/grubenv ]; then\n  set have_grubenv=true\n  load_env\nfi\n"
    env = grubenv(**({"initrdfail": "1"} if failed else {}))
    text = (head + UBUNTU).encode()
    files = {**kernels("1"), "boot/grub/grub.cfg": text, "boot/grub/grubenv": env}
    menu, notes = look(disk(tmp_path, files))
    options = b"root=PARTUUID=12 ro console=ttyS0 "
    assert shown(menu) == [
        (
            *("Ubuntu", b"/boot/vmlinuz-1", [b"/boot/initrd.img-1"] if failed else []),
            options + (b"vt.handoff=7" if failed else b"panic=-1"),
        )
    ]
    assert notes == ["grub.cfg: the command recordfail is not known here"]


# A line for each way in which an entry can be written, and the kernel that it loads or the reason.
WAYS = """
search --no-floppy --label root --set=root; linux /boot/vmlinuz-1 a | /boot/vmlinuz-1 a
search --no-floppy --set -f /boot/vmlinuz-1; linux /boot/vmlinuz-1 a | /boot/vmlinuz-1 a
search.fs_uuid @ root hd7,gpt9; linux ($root)/boot/vmlinuz-1 a | /boot/vmlinuz-1 a
search -n -u @ -s; linux /boot/vmlinuz-1 a | /boot/vmlinuz-1 a
search --fs-uuid --set=dev --hint hd0,gpt9 @; linux ($dev)/boot/vmlinuz-1 | /boot/vmlinuz-1
linux (hd0,gpt1)/boot/vmlinuz-1 a | /boot/vmlinuz-1 a
linux (hd0,1)/boot/vmlinuz-1 a | /boot/vmlinuz-1 a
linux (xvda1)/boot/vmlinuz-1 a | /boot/vmlinuz-1 a
linuxefi /boot/vmlinuz-1 "a b" 'c"d' e\\ f | /boot/vmlinuz-1 "a b" c\\"d "e f"
set k=/boot/vmlinuz-1; linux $k ${none} x"$k"y | /boot/vmlinuz-1 x/boot/vmlinuz-1y
set words="a  b c"; linux /boot/vmlinuz-1 $words | /boot/vmlinuz-1 a b c
for v in 0 1; do linux /boot/vmlinuz-$v v=$v; done | /boot/vmlinuz-1 v=1
if ! test -f /boot/none; then linux /boot/vmlinuz-1 "$1"; fi | /boot/vmlinuz-1 "a title"
if [ -d /boot -a ! -e /x ]; then linux /boot/vmlinuz-1; fi | /boot/vmlinuz-1
set n=; while [ "$n" != xxx ]; do n=x$n; done; linux /boot/vmlinuz-1 $n | /boot/vmlinuz-1 xxx
until false; do linux /boot/vmlinuz-1 once; break; done | /boot/vmlinuz-1 once
if [ 10 -gt 9 ]; then linux /boot/vmlinuz-1; else linux /x; fi | /boot/vmlinuz-1
if false; then x; elif true; then linux /boot/vmlinuz-1; else y; fi | /boot/vmlinuz-1
function f { linux /boot/vmlinuz-1 $1 $#; return; linux /x; }; f a b | /boot/vmlinuz-1 a 2
linux /boot/none | xvda1 has no kernel /boot/none
multiboot2 /boot/xen.gz; module2 /boot/vmlinuz-1 | it loads no Linux, but multiboot2
chainloader +1 | it loads no Linux, but chainloader
linux (hd5,gpt1)/boot/vmlinuz-1 | no volume (hd5,gpt1)
search --fs-uuid --set=root 1234-5678; linux /boot/vmlinuz-1 a | /boot/vmlinuz-1 a
"""


@pytest.mark.usefixtures("machine")
def test_each_way_to_write_an_entry_is_understood(tmp_path):
    rows = [line.replace("@", UUID).split(" | ") for line in WAYS.strip().splitlines()]
    text = "".join(f"menuentry 'a title' --id={i} {{\n{row[0]}\n}}\n" for i, row in enumerate(rows))
    files = {**kernels("1"), "boot/grub/grub.cfg": text.encode()}
    menu, notes = look(disk(tmp_path, files))
    found = {int(e.id): e for e in menu.entries}
    for i, (way, wanted) in enumerate(rows):
        path, _, options = wanted.partition(" ")
        if path.startswith("/"):
            entry = found[i]
            assert (entry.kernel.path, entry.options) == (path.encode(), options.encode()), way
        else:
            assert i not in found, way
            assert any(wanted in line for line in notes), (way, notes)


@pytest.mark.usefixtures("machine")
def test_other_configurations_are_followed(tmp_path):
    files = {
        **kernels("1"),
        "boot/grub/grub.cfg": b"source $prefix/a.cfg\nconfigfile ($root)/b.cfg\n"
        b"menuentry no { true; }\n",
        "boot/grub/a.cfg": b"set opt=from-a\nset default=1\n",
        "b.cfg": b"menuentry one { linux /boot/vmlinuz-1 $opt }\n"
        b"menuentry two { linux /boot/vmlinuz-1 two; }\n",
    }
    menu, notes = look(disk(tmp_path, files))
    assert notes == []
    assert [(e.name, e.options) for e in menu.entries] == [("one", b"from-a"), ("two", b"two")]
    assert menu.default == 1


# What does not end, or nests, or grows: the text, and the one line that it ends in.
ENDLESS = [
    ("while true; do true; done", "more than 200 turns of loops"),
    ("until false; do set a=$a; done", "more than 200 turns of loops"),
    ("function f { f; }; f", "nests deeper than 12"),
    ("source $config_file", "nests deeper than 12|more than 16 GRUB configurations"),
    ("configfile $config_file", "more than 16 GRUB configurations"),
    ("set a=xxxxxxxxxxxxxxxx; while true; do set a=$a$a; done", "a word of more than 8192 bytes"),
    ("{ " * 50 + "} " * 50, "nests deeper than 12"),
    ("if true; then " * 30 + "fi; " * 30, "nests deeper than 12"),
    ("[ " + "( " * 20 + "x ]", "nests deeper than 8"),
    ("true 'x", "a word that does not end"),
    ('true "x', "a word that does not end"),
    ('true "${x"', "a word that does not end"),
    ('true "${x" y; true', "a word that does not end"),
    ("if true; then true", "a GRUB script has an end where fi|has an end where elif or else or fi"),
    ("fi", "the command fi is not known"),
    ("}", "a } too many"),
    ("menuentry x {", "a { that is not closed"),
    ("menuentry x", "a menu entry without a block"),
    ("menuentry { true; }", "a menu entry without a title"),
    ("true | false", "GRUB's scripts have no |"),
    ("\n".join(f"menuentry {i} {{ true; }}" for i in range(200)), "more than 128 menu entries"),
    ("\n".join(f"set v{i}=1" for i in range(300)), "more than 256 variables"),
    ("true " + "x " * 300, "a GRUB command of more than 256 words"),
    ("submenu a { " * 6 + "true; " + "} " * 6, "submenus nest deeper than 4|nests deeper than 12"),
    ("true \\", "a block behind true"),
    ("$", "the command $ is not known"),
    ("#", None),
    ("[", "a test in a GRUB script without its ]"),
    ("x" * 200000, "has 200.* bytes, at most 131072"),
]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(("script", "why"), ENDLESS, ids=range(len(ENDLESS)))
def test_a_script_without_an_end_ends_in_a_line(script, why, tmp_path):
    tail = "\nmenuentry x { linux /boot/vmlinuz-1; }\n"
    files = {**kernels("1"), "boot/grub/grub.cfg": (script + tail).encode()}
    menu, notes = look(disk(tmp_path, files))
    if why is None:
        assert [e.name for e in menu.entries] == ["x"]
    else:
        pattern = "|".join(re.escape(each) if ".*" not in each else each for each in why.split("|"))
        pattern = re.escape(why) if why.endswith("|") else pattern
        assert any(re.search(pattern, line) for line in notes), notes


@pytest.mark.usefixtures("machine")
def test_a_loop_over_a_long_body_ends_in_a_line(tmp_path):
    body = "true " + "x" * 4000 + "\n"
    script = "while true; do\n" + body * 30 + "done\n"
    files = {**kernels("1"), "boot/grub/grub.cfg": script.encode()}
    found, notes = volumes(disk(tmp_path, files))
    assert run(sources.look(found, notes)).entries == []
    assert "a GRUB script of more than 4194304 bytes, with its loops" in notes.lines
