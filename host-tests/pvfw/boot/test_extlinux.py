"""extlinux.conf as u-boot-menu, Alpine and a person write it."""

import pytest
from fixtures.bootdisks import MIB, ext, run, volumes
from fixtures.bootfiles import shown

from pvfw.boot import sources

DEBIAN = b"""## /boot/extlinux/extlinux.conf
default l0r
menu title U-Boot menu
prompt 0
timeout 50

label l0
\tmenu label Debian GNU/Linux 13 6.12.9
\tlinux /boot/vmlinuz-6.12.9
\tinitrd /boot/initrd.img-6.12.9
\tfdtdir /usr/lib/linux-image-6.12.9/
\tappend root=/dev/xvda1 ro quiet

label l0r
\tmenu label Debian GNU/Linux 13 6.12.9 (rescue target)
\tlinux ../vmlinuz-6.12.9
\tinitrd ../initrd.img-6.12.9,/other.img
\tappend root=/dev/xvda1 ro single
"""
ALPINE = b"""DEFAULT menu.c32
PROMPT 0
MENU TITLE Alpine/Linux Boot Menu
TIMEOUT 10
LABEL lts
  MENU DEFAULT
  MENU LABEL ^Linux lts
  LINUX vmlinuz-lts
  INITRD initramfs-lts
  APPEND root=UUID=1 modules=ext4 quiet

LABEL virt
  LINUX vmlinuz-virt
  APPEND initrd=initramfs-virt root=UUID=1
MENU SEPARATOR
LABEL memtest
  KERNEL memtest.c32
"""


def look(folder, files):
    found, notes = volumes(ext(folder, files, "-t", "ext4", size=8 * MIB))
    return run(sources.look(found, notes)), notes.lines


@pytest.mark.usefixtures("machine")
def test_debian_s_is_read_from_a_disk_without_partitions(tmp_path):
    menu, notes = look(tmp_path, {"boot/extlinux/extlinux.conf": DEBIAN})
    folder = b"/boot/extlinux/../"
    assert shown(menu) == [
        (
            *("Debian GNU/Linux 13 6.12.9", b"/boot/vmlinuz-6.12.9"),
            *([b"/boot/initrd.img-6.12.9"], b"root=/dev/xvda1 ro quiet"),
        ),
        (
            "Debian GNU/Linux 13 6.12.9 (rescue target)",
            folder + b"vmlinuz-6.12.9",
            [folder + b"initrd.img-6.12.9", b"/other.img"],
            b"root=/dev/xvda1 ro single",
        ),
    ]
    assert (menu.default, menu.timeout, notes) == (1, 5, [])
    assert menu.entries[0].source == "extlinux xvda:/boot/extlinux/extlinux.conf"


@pytest.mark.usefixtures("machine")
def test_alpine_s_menu_default_counts_where_default_is_a_program(tmp_path):
    text = ALPINE.replace(b"  MENU DEFAULT\n", b"").replace(
        b"LABEL virt\n", b"LABEL virt\nMENU DEFAULT\n"
    )
    menu, notes = look(tmp_path, {"boot/extlinux.conf": text})
    assert shown(menu) == [
        (
            *("Linux lts", b"/boot/vmlinuz-lts", [b"/boot/initramfs-lts"]),
            b"root=UUID=1 modules=ext4 quiet",
        ),
        ("virt", b"/boot/vmlinuz-virt", [b"/boot/initramfs-virt"], b"root=UUID=1"),
    ]
    assert (menu.default, menu.timeout) == (1, 1)
    assert notes == ["extlinux xvda:/boot/extlinux.conf: memtest passed over: no Linux"]


@pytest.mark.usefixtures("machine")
def test_what_is_included_is_read_and_a_ring_ends(tmp_path):
    files = {
        "extlinux/extlinux.conf": b"append all\ninclude more.conf\n",
        "extlinux/more.conf": b"label x\nlinux /k\n",
    }
    menu, _ = look(tmp_path, files)
    assert shown(menu) == [("x", b"/k", [], b"all")]
    files["extlinux/more.conf"] = b"label x\nlinux /k\ninclude extlinux.conf\n"
    menu, notes = look(tmp_path, files)
    assert menu.entries == []
    assert notes == ["xvda:/extlinux/extlinux.conf passed over: more than 8 includes"]


@pytest.mark.usefixtures("machine")
def test_too_many_labels_are_refused(tmp_path):
    text = b"".join(b"label %d\nlinux /k\n" % i for i in range(200))
    _, notes = look(tmp_path, {"extlinux/extlinux.conf": text})
    assert notes == ["xvda:/extlinux/extlinux.conf passed over: more than 128 labels"]
