"""Where signatures count: which entries a disk has, and what a hostile disk can do to them.

The kernels' content is checked when it is read: host-tests/pvfw/kernel/test_signed.py.
"""

import random
import tempfile
from pathlib import Path

import pytest
from fixtures.bootdisks import MIB, ext, run, volumes
from fixtures.bootfiles import NEW, OLD, UUID, grub_mkconfig, grubenv, kernels, shown
from fixtures.minisigning import Minisign

import hw
from pvfw.boot import sources
from pvfw.boot.errors import BootError
from pvfw.boot.minisign import PublicKey
from pvfw.boot.trust import Trust
from pvfw.boot.volumes import Notes
from pvxen.machine import Machine

pytestmark = pytest.mark.usefixtures("machine")

ENTRIES = "boot/loader/entries"
CONF = b"title %s\nlinux /boot/vmlinuz-1\noptions root=/dev/xvda\n"
GRUB_CFG = b"""if [ -s $prefix/grubenv ]; then load_env; fi
if [ "${next_entry}" ]; then set default="${next_entry}"; else set default="${saved_entry}"; fi
menuentry one --id one { linux /boot/vmlinuz-1 root=/dev/xvda $more; }
menuentry two --id two { linux /boot/vmlinuz-2 root=/dev/xvda; }
"""


@pytest.fixture(scope="module")
def signer(tmp_path_factory):
    return Minisign(tmp_path_factory.mktemp("minisign"))


@pytest.fixture
def look(signer, tmp_path):
    """Returns what a disk with these files says is to be booted, and the notes."""

    def of(files, keys=None):
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        data = ext(folder, {**kernels("1", "2"), **files}, "-t", "ext4", "-U", UUID, size=16 * MIB)
        trust = Trust([PublicKey(key) for key in ([signer.public] if keys is None else keys)])
        found, notes = volumes(data, trust=trust)
        return run(sources.look(found, notes)), notes.lines

    return of


def conf(name):
    return {f"{ENTRIES}/{name}.conf": CONF % name.encode()}


def test_signed_entries_are_there_and_others_are_not(signer, look):
    files = {**conf("a"), **signer.signed(conf("a")), **conf("b")}
    menu, notes = look(files)
    assert [entry.id for entry in menu.entries] == ["a"]
    where = "xvda:/boot/loader/entries/b.conf"
    assert notes == [f"BLS {where} passed over: {where}: there is no signature b.conf.minisig"]


def test_a_signature_may_be_in_a_folder_of_its_own(signer, look):
    menu, _ = look({**conf("a"), **signer.signed(conf("a"), "minisig")})
    assert [entry.id for entry in menu.entries] == ["a"]


def test_a_second_key_counts_as_well_and_no_key_not_at_all(signer, look, tmp_path):
    (tmp_path / "other").mkdir()
    other = Minisign(tmp_path / "other")
    files = {**conf("a"), **signer.signed(conf("a"))}
    assert look(files, [other.public, signer.public])[0].entries
    menu, notes = look(files, [other.public])
    assert menu.entries == []
    assert "signed by the key" in notes[0]
    menu, notes = look(files, [])
    assert menu.entries == []
    assert "there is no key" in notes[0]


def test_a_changed_entry_is_passed_over(signer, look):
    files = {**conf("a"), **signer.signed(conf("a"))}
    files[f"{ENTRIES}/a.conf"] += b"options init=/bin/sh\n"
    menu, notes = look(files)
    assert menu.entries == []
    assert notes[0].endswith("a.conf: the content is not what was signed")


def test_the_signatures_of_two_files_cannot_be_swapped(signer, look):
    one, two = signer.signed(conf("a")), signer.signed(conf("b"))
    (a, sa), (b, sb) = [*one.items(), *two.items()]
    menu, notes = look({**conf("a"), **conf("b"), a: sb, b: sa})
    assert menu.entries == []
    assert [note.rpartition(": ")[2] for note in notes[:2]] == [
        "it is the signature of b.conf",
        "it is the signature of a.conf",
    ]


def test_a_signed_file_does_not_pass_for_another(signer, look):
    """Both content and signature of a.conf, under another name."""
    (signature,) = signer.signed(conf("a")).values()
    files = {f"{ENTRIES}/z.conf": conf("a")[f"{ENTRIES}/a.conf"]}
    menu, notes = look({**files, f"{ENTRIES}/z.conf.minisig": signature})
    assert menu.entries == []
    assert notes[0].endswith("z.conf: it is the signature of a.conf")


@pytest.mark.parametrize(
    ("comment", "counts"),
    [
        ("file:a.conf", True),
        ("timestamp:1\tfile:entries/a.conf\thashed", True),
        ("file:boot/loader/entries/a.conf", True),
        ("file:other/a.conf", False),
        ("file:.conf", False),
        ("file:conf", False),
        ("file:", False),
        ("file:/", False),
        ("file:b.conf\tfile:a.conf", True),
        ("a.conf", False),
    ],
)
def test_the_trusted_comment_names_the_end_of_the_path(comment, counts, signer, look):
    (name, content), *_ = conf("a").items()
    signature = signer.sign(name, content, "-t", comment)
    menu, _ = look({**conf("a"), f"{name}.minisig": signature})
    assert bool(menu.entries) == counts


def test_an_entry_with_variables_is_passed_over(signer, look):
    """GRUB's variables come from files that are not signed together with the entry."""
    text = {f"{ENTRIES}/a.conf": CONF % b"a" + b"options $kernelopts\n"}
    menu, notes = look({**text, **signer.signed(text)})
    assert menu.entries == []
    assert notes[0].endswith("it uses variables, which are not signed")


def test_loader_conf_chooses_without_a_signature(signer, look):
    files = {**conf("a"), **conf("b"), "loader/loader.conf": b"default a\ntimeout 3\n"}
    menu, _ = look({**files, **signer.signed(conf("a")), **signer.signed(conf("b"))})
    assert (menu.entries[menu.default].id, menu.timeout) == ("a", 3)


def test_a_grub_cfg_counts_signed_only(signer, look):
    config = {"boot/grub/grub.cfg": GRUB_CFG}
    menu, notes = look(config)
    assert menu.entries == []
    assert "xvda:/boot/grub/grub.cfg: there is no signature grub.cfg.minisig" in notes
    menu, _ = look({**config, **signer.signed(config)})
    assert [each[3] for each in shown(menu)] == [b"root=/dev/xvda", b"root=/dev/xvda"]


def test_an_environment_block_chooses_an_entry_and_no_more(signer, look):
    config = {"boot/grub/grub.cfg": GRUB_CFG}
    env = grubenv(saved_entry="two", more="init=/bin/sh", prefix="(hd1)/x", root="hd1")
    menu, _ = look({**config, **signer.signed(config), "boot/grub/grubenv": env})
    assert [each[3] for each in shown(menu)] == [b"root=/dev/xvda", b"root=/dev/xvda"]
    assert menu.default == 1


def test_a_saved_entry_with_words_of_the_script_in_it_is_no_entry(signer, look):
    config = {"boot/grub/grub.cfg": GRUB_CFG.replace(b'"${saved_entry}"', b"${saved_entry}")}
    env = grubenv(saved_entry="two more=init=/bin/sh")
    menu, notes = look({**config, **signer.signed(config), "boot/grub/grubenv": env})
    assert [each[3] for each in shown(menu)] == [b"root=/dev/xvda", b"root=/dev/xvda"]
    assert menu.default == 0
    assert "is no entry that can be booted" in notes[-1]


def test_the_script_s_own_default_is_before_the_saved_one(signer, look):
    entries = GRUB_CFG[GRUB_CFG.index(b"menuentry") :]
    config = {"boot/grub/grub.cfg": b"load_env\nset default=one\n" + entries}
    env = grubenv(saved_entry="two")
    menu, _ = look({**config, **signer.signed(config), "boot/grub/grubenv": env})
    assert menu.default == 0


@pytest.mark.parametrize("command", ["source", "configfile"])
def test_what_a_grub_cfg_reads_must_be_signed_as_well(command, signer, look):
    config = {"boot/grub/grub.cfg": f"{command} /boot/grub/more.cfg\n".encode()}
    more = {"boot/grub/more.cfg": GRUB_CFG}
    menu, notes = look({**config, **signer.signed(config), **more})
    assert menu.entries == []
    assert "more.cfg: there is no signature more.cfg.minisig" in notes[0]
    menu, _ = look({**config, **signer.signed(config), **more, **signer.signed(more)})
    assert len(menu.entries) == 2


def test_what_an_extlinux_conf_reads_must_be_signed_as_well(signer, look):
    text = {"extlinux/extlinux.conf": b"include more.conf\n"}
    more = {"extlinux/more.conf": b"label a\nlinux /boot/vmlinuz-1\n"}
    signed = {**text, **signer.signed(text), **more}
    assert look(signed)[0].entries == []
    assert look({**text, **more, **signer.signed(more)})[0].entries == []
    assert [e.id for e in look({**signed, **signer.signed(more)})[0].entries] == ["a"]


def test_debian_s_grub_cfg_boots_what_it_does_without_signatures(signer, look, tmp_path):
    config = {"boot/grub/grub.cfg": grub_mkconfig(tmp_path)}
    saved = f"gnulinux-advanced-{UUID}>gnulinux-{OLD}-advanced-{UUID}"
    files = {**config, **kernels(OLD, NEW), "boot/grub/grubenv": grubenv(saved_entry=saved)}
    menu, _ = look({**files, **signer.signed(config)})
    found, notes = volumes(ext(tmp_path, files, "-t", "ext4", "-U", UUID, size=16 * MIB))
    plain = run(sources.look(found, notes))
    assert shown(menu) == shown(plain)
    assert len(menu.entries) == 5
    assert menu.default == plain.default == 3


def test_grub_mkconfig_takes_no_signature_in_the_folder_for_a_kernel(tmp_path):
    name = f"vmlinuz-{NEW}.minisig"
    for folder in ("plain", "beside", "folder"):
        (tmp_path / folder).mkdir()
    plain = grub_mkconfig(tmp_path / "plain")
    assert grub_mkconfig(tmp_path / "folder", others=[f"minisig/{name}"]) == plain
    assert name.encode() in grub_mkconfig(tmp_path / "beside", others=[name])


# A disk that is changed anywhere.


def _tree(signer, folder):
    config = {"boot/grub/grub.cfg": grub_mkconfig(folder, versions=("1", "2"))}
    entries = {**conf("a"), **conf("b")}
    lines = {"boot/extlinux/extlinux.conf": b"label l\nlinux ../vmlinuz-1\nappend root=x\n"}
    env = grubenv(saved_entry="1>2", more="init=/bin/sh")
    for signed in (config, entries, lines):
        yield {**kernels("1", "2"), **signed, **signer.signed(signed), "boot/grub/grubenv": env}


# What somebody would put into these files.
WORDS = (
    *(b" init=/bin/sh", b"\nlinux /boot/vmlinuz-2\n", b"options x\n", b"${more}", b"file:b.conf"),
    *(b"menuentry x {", b"load_env\n", b"saved_entry=", b"\0", b"\n", b"R", b"trusted comment: "),
)


@pytest.mark.fuzz("boot-signed")
def test_whatever_is_changed_each_entry_is_one_that_was_signed(signer, tmp_path, fuzz):
    trust = Trust([PublicKey(signer.public)])

    def entries(data):
        found, _ = volumes(bytes(data), trust=trust)
        menu = run(sources.look(found, Notes()))
        return {(e.kernel.path, *(p.path for p in e.initrds), e.options) for e in menu.entries}

    disks = []
    for i, files in enumerate(_tree(signer, tmp_path)):
        (tmp_path / str(i)).mkdir()
        data = ext(tmp_path / str(i), files, "-t", "ext4", "-U", UUID, size=8 * MIB)
        texts = [content for name, content in files.items() if "/vmlinuz" not in name]
        places = [(data.find(each[:1024]), min(len(each), 4096)) for each in texts]
        disks.append((data, entries(data), [place for place in places if place[0] >= 0]))
        assert disks[-1][1]
    for seed in fuzz.seeds(150):
        choice = random.Random(seed)
        data, signed, places = choice.choice(disks)
        changed = bytearray(data)
        for _ in range(choice.randint(1, 3)):
            begin, size = choice.choice(places)
            at, word = begin + choice.randrange(size), choice.choice(WORDS)
            if choice.random() < 0.3:
                # The place of another file, signature and all.
                other, length = choice.choice(places)
                changed[begin : begin + length] = data[other : other + length]
            else:
                changed[at : at + len(word)] = word
        hw.attach(Machine())
        try:
            found = entries(changed)
        except BootError:
            fuzz.done["refused"] += 1
            continue
        assert found <= signed
        fuzz.done["entries"] += len(found)
        fuzz.done["none"] += not found
