"""Wrong uses of the command line: each is one line, an exit code, and changes nothing."""

import importlib
import os
from pathlib import Path

import pytest
from fixtures.targets import SIZE, make, vmcore

from pvdump import cli
from pvdump.arm import settings
from pvdump.guest import record
from pvfw import superblock

USAGE, FAILED = 2, 1
USER = 65534
NO_OPTIONS = (
    "disarm",
    "remove",
    "doctor",
    "enable",
    "setup",
    "status",
    "booted",
)  # these have no wrong values but usage
STATES = {"ready": "READY", "dump": "COMPLETE"}
LONG = "n" * 256
SETTINGS = {
    "here": "directory: /nonexistent",
    "wrong": "keep: 5\nkept: 5",
    "keep": "keep: 0",
    "proc": "directory: /proc/none",
    "sys": "directory: /proc/version",
    "open": "level: [",
    "list": "- level",
    "twice": "level: 1\nlevel: 2",
    "tab": "level: 1\n\tkeep: 5",
    "alias": "level: *none",
    "deep": "[" * 20000,
    "bytes": "\x01",
    "many": "level: [1, 2]",
    "one": "targets: xvdb",
    "relative": "directory: crash",
}
# The words, the exit code, and a part of the line. In the folder: see files().
TABLE = [
    ("", USAGE, "required: COMMAND"),
    ("dump", USAGE, "invalid choice: 'dump'"),
    ("--verbose", USAGE, "required: COMMAND"),
    ("--vers", USAGE, "required: COMMAND"),
    ("prepare", USAGE, "required: DISK-OR-FILE"),
    ("prepare ''", USAGE, "a name expected"),
    ("prepare ready extra", USAGE, "unrecognized arguments: extra"),
    ("prepare new --size", USAGE, "expected one argument"),
    ("prepare new --size=", USAGE, "'' is not a size"),
    ("prepare new --size=M", USAGE, "'M' is not a size"),
    ("prepare new --size=-1", USAGE, "'-1' is not a size"),
    ("prepare new --size=1.5G", USAGE, "'1.5G' is not a size"),
    ("prepare new --size=8MB", USAGE, "'8MB' is not a size"),
    ("prepare new --size=0x10", USAGE, "'0X10' is not a size"),
    ("prepare new --size=1_0M", USAGE, "'1_0M' is not a size"),
    ("prepare new --size=\N{SUPERSCRIPT TWO}", USAGE, "is not a size"),
    ("prepare new --size=99999999999999999999T", USAGE, "is not a size"),
    ("prepare new --size=9999999999T", USAGE, "larger than any file can be"),
    ("prepare new --size=1M", FAILED, "at least"),
    ("prepare new --size=8000000T", FAILED, "new: 8796093022208000000 bytes:"),
    ("prepare ready --force --again", USAGE, "not allowed with argument"),
    ("prepare new", FAILED, "new does not exist; with --size"),
    ("prepare none/new --size=8M", FAILED, "No such file or directory"),
    ("prepare ready/new --size=8M", FAILED, "Not a directory"),
    ("prepare /dev/pvdump-none", FAILED, "there is no device /dev/pvdump-none"),
    ("prepare /dev/pvdump-none --size=8M", FAILED, "there is no device /dev/pvdump-none"),
    ("prepare devices/pvdump-none --size=8M", FAILED, "files are not made below /dev"),
    ("prepare /dev/null", FAILED, "neither a disk nor a file"),
    ("prepare folder", FAILED, "Is a directory"),
    ("prepare fifo", FAILED, "neither a disk nor a file"),
    ("prepare socket --force", FAILED, "socket: No such device or address"),
    ("prepare dangling", FAILED, "No such file or directory"),
    (f"prepare {LONG}", FAILED, "File name too long"),
    ("prepare tiny", FAILED, "at least"),
    ("prepare data", FAILED, "holds data of an unknown kind"),
    ("prepare dump", FAILED, "holds a dump of 6.1.0-test (complete)"),
    ("prepare dump --again", FAILED, "not collected"),
    ("prepare data --again", FAILED, "no pvdump superblock"),
    ("prepare dump --again --size=9M", USAGE, "--size is for a file to be made"),
    ("prepare dump --swap --size=9M", USAGE, "--size is for a file to be made"),
    ("prepare ready --size=9M", FAILED, "--size is for a file to be made"),
    ("prepare /proc/self/mem", FAILED, "/proc/self/mem cannot be used as a disk"),
    ("collect dump", USAGE, "required: OUT"),
    ("collect '' out", USAGE, "a name expected"),
    ("collect dump out/", USAGE, "'out/' names a folder"),
    ("collect dump devices/pvdump-none", FAILED, "files are not made below /dev"),
    ("collect dump ''", USAGE, "a name expected"),
    ("collect dump out --salv", USAGE, "unrecognized arguments: --salv"),
    ("collect none out", FAILED, "none: No such file or directory"),
    ("collect ready out", FAILED, "holds no dump"),
    ("collect data out", FAILED, "data: no pvdump superblock"),
    ("collect --salvage data out", FAILED, "no vmcore where one should begin"),
    ("collect folder out", FAILED, "neither a disk nor a file"),
    ("collect fifo out", FAILED, "neither a disk nor a file"),
    ("collect /proc/self/mem out", FAILED, "cannot be used as a disk"),
    ("collect tiny out", FAILED, "no pvdump superblock"),
    ("collect empty out", FAILED, "no pvdump superblock"),
    ("collect dump data", FAILED, "data exists already"),
    ("collect dump folder", FAILED, "folder exists already"),
    ("collect dump dangling", FAILED, "dangling exists already"),
    ("collect dump none/out", FAILED, "there is no folder none"),
    ("collect dump data/out", FAILED, "Not a directory"),
    (f"collect dump {LONG}", FAILED, "File name too long"),
    ("collect dump /dev/pvdump-none", FAILED, "files are not made below /dev"),
    ("collect dump /proc/out", FAILED, "/proc"),
    ("collect --log dump", USAGE, "required: OUT"),
    ("collect --log dump out", FAILED, "VMCOREINFO has no usable NUMBER(phys_base)"),
    ("collect --log --format kdump dump out", USAGE, "--log is text"),
    ("collect --log ready out", FAILED, "holds no dump"),
    ("collect --log", USAGE, "required: DISK, OUT"),
    ("collect --salvage", USAGE, "required: DISK, OUT"),
    ("collect --format elf", USAGE, "required: DISK, OUT"),
    ("collect --compress zlib", USAGE, "required: DISK, OUT"),
    ("collect --identity data", USAGE, "required: DISK, OUT"),
    ("collect --format elf --compress zlib dump out", USAGE, "--compress is for --format kdump"),
    ("collect dump out more", USAGE, "unrecognized arguments: more"),
    ("collect --from", USAGE, "expected one argument"),
    ("collect --from ''", USAGE, "a name expected"),
    ("collect --from dump out", USAGE, "required: OUT"),
    ("collect --from ready dump out", USAGE, "are for collecting without names"),
    ("collect --defer-hooks dump out", USAGE, "are for collecting without names"),
    ("collect --config here.yaml dump out", USAGE, "are for collecting without names"),
    ("collect --config none", FAILED, "none: No such file or directory"),
    ("collect --config folder", FAILED, "folder: Is a directory"),
    ("collect --config data", FAILED, "data has more than 65536 bytes"),
    ("collect --config wrong.yaml", FAILED, "wrong.yaml: line 2: no setting 'kept'"),
    ("collect --config keep.yaml", FAILED, "keep.yaml: line 1: keep: '0' is no number of dumps"),
    ("collect --config proc.yaml --from ready", FAILED, "/proc/none: No such file or directory"),
    ("collect --config sys.yaml --from ready", FAILED, "/proc/version: File exists"),
    ("list dump", USAGE, "unrecognized arguments: dump"),
    ("list --yaml", USAGE, "unrecognized arguments: --yaml"),
    ("list --config", USAGE, "expected one argument"),
    ("list --config none", FAILED, "none: No such file or directory"),
    ("list --json --config sys.yaml", FAILED, "/proc/version: Not a directory"),
    ("log dump", USAGE, "unrecognized arguments: dump"),
    ("log --json", USAGE, "unrecognized arguments: --json"),
    ("log --config wrong.yaml", FAILED, "wrong.yaml: line 2: no setting 'kept'"),
    ("log --config proc.yaml", FAILED, "there is no dump in /proc/none"),
    ("log --config sys.yaml", FAILED, "/proc/version: Not a directory"),
    ("sign", USAGE, "required: IMAGE, --key, --cert"),
    ("sign-boot", USAGE, "required: FILE"),
    ("sign-boot ''", USAGE, "a name expected"),
    ("sign-boot data", FAILED, "the settings have no boot_key"),
    ("sign-boot --if data", USAGE, "unrecognized arguments: --if"),
    ("sign data", USAGE, "required: --key, --cert"),
    ("sign data --key data", USAGE, "required: --cert"),
    ("sign data --key '' --cert data", USAGE, "a name expected"),
    ("sign data --key data --cert data --out=", USAGE, "a name expected"),
    ("sign none --key data --cert data", FAILED, "none: No such file or directory"),
    ("sign data --key none --cert data", FAILED, "none: No such file or directory"),
    ("sign data --key data --cert none", FAILED, "none: No such file or directory"),
    ("sign folder --key data --cert data", FAILED, "folder is no file"),
    ("sign data --key fifo --cert data", FAILED, "fifo is no file"),
    ("sign data --key data --cert socket", FAILED, "socket: No such device or address"),
    ("sign data --key tiny --cert tiny", FAILED, "sbsign"),
    ("sign data --key data --cert data", FAILED, "data is data itself, which is read for it"),
    ("sign data --key tiny --cert empty --out tiny", FAILED, "tiny is tiny itself, which is read"),
    ("sign data --key tiny --cert empty extra", USAGE, "unrecognized arguments: extra"),
    ("arm --out out", USAGE, "--out and --force go with --print"),
    ("arm --force", USAGE, "--out and --force go with --print"),
    ("arm --print", USAGE, "--print needs --out FILE"),
    ("arm --print --check --out out", USAGE, "not allowed with argument"),
    ("arm --config none", FAILED, "none: No such file or directory"),
    ("arm extra", USAGE, "pvdump arm: unrecognized arguments: extra; see pvdump arm --help"),
    ("arm ''", USAGE, "pvdump arm: unrecognized arguments: ''; see pvdump arm --help"),
    ("arm --config open.yaml", FAILED, "open.yaml: line 2: expected"),
    ("arm --config list.yaml", FAILED, "list.yaml: line 1: lines such as `level: 31` expected"),
    ("arm --config twice.yaml", FAILED, "twice.yaml: line 2: level is said a second time"),
    ("arm --config tab.yaml", FAILED, "tab.yaml: line 2: found character '\\t'"),
    ("arm --config alias.yaml", FAILED, "alias.yaml: line 1: found undefined alias 'none'"),
    ("arm --config deep.yaml", FAILED, "deep.yaml: its lists or mappings are nested too deeply"),
    ("arm --config bytes.yaml", FAILED, "bytes.yaml: it has bytes that are no text"),
    ("arm --config many.yaml", FAILED, "many.yaml: line 1: level: a text or a number expected"),
    ("arm --config one.yaml", FAILED, "one.yaml: line 1: targets: a list expected"),
    (
        "arm --config relative.yaml",
        FAILED,
        "directory: 'crash': a name that begins with / expected",
    ),
    ("arm --print --out out --target file:", USAGE, "a name expected, an empty one found"),
    ("arm --print --out out --target file:none", FAILED, "none: No such file or directory"),
    ("arm --print --out out --target file:folder", FAILED, "neither a disk nor a file"),
    ("arm --print --out data --image data --force", FAILED, "data is data itself, which is read"),
    ("arm --print --out fifo --force", FAILED, "fifo is no file, and is not replaced"),
    ("disarm now", USAGE, "pvdump disarm: unrecognized arguments: now; see pvdump disarm --help"),
    ("disarm --force", USAGE, "unrecognized arguments: --force"),
    ("disarm ''", USAGE, "unrecognized arguments: ''"),
    ("test extra", USAGE, "unrecognized arguments: extra"),
    ("test --result --yes", USAGE, "--yes goes with --crash"),
    ("test --level 32", USAGE, "'32' is no level"),
    ("test --config none", FAILED, "none: No such file or directory"),
    ("test --image=", USAGE, "a name expected"),
    ("estimate extra", USAGE, "unrecognized arguments: extra"),
    ("estimate --level 1", USAGE, "unrecognized arguments: --level 1"),
    ("estimate --json --config folder", FAILED, "folder: Is a directory"),
    ("status extra", USAGE, "unrecognized arguments: extra"),
    (
        "status --jsn",
        USAGE,
        "pvdump status: unrecognized arguments: --jsn; see pvdump status --help",
    ),
    ("status --json=yes", USAGE, "ignored explicit argument 'yes'"),
    ("test --yes", USAGE, "--yes goes with --crash"),
    ("test --crash --result", USAGE, "not allowed with argument"),
    ("estimate --config data", FAILED, "data has more than 65536 bytes"),
    ("status --config none", USAGE, "unrecognized arguments: --config none"),
    ("arm --print --out=", USAGE, "a name expected"),
    ("arm --print --out out --target ''", USAGE, ": a name like xvdb expected"),
    ("arm --print --out out --target disk", USAGE, "disk: a name like xvdb expected"),
    ("arm --print --out out --target xvdb=ready", USAGE, "'ready' is no UUID"),
    ("arm --print --out out --target xvdzz", FAILED, "/dev/xvdzz: No such file or directory"),
    ("arm --print --out out --level 32", USAGE, "'32' is no level"),
    ("arm --print --out out --compress lzo", USAGE, "'lzo': none or zstd expected"),
    ("arm --print --out out --compress-level 23", USAGE, "'23' is no level"),
    ("arm --print --out out --compress-level=-8", USAGE, "'-8' is no level"),
    ("arm --print --out out --recipient age1", USAGE, "'age1' was mistyped"),
    ("arm --print --out out --log open", USAGE, "'open': clear expected"),
    ("arm --print --out out --then explode", USAGE, "'explode': halt or poweroff or reboot"),
    ("arm --print --out out --config none", FAILED, "none: No such file or directory"),
    ("arm --print --out out --config folder", FAILED, "folder: Is a directory"),
    ("arm --print --out out --config data", FAILED, "data has more than 65536 bytes"),
    ("arm --print --out data", FAILED, "data exists; see --force"),
    ("arm --print --out dangling", FAILED, "dangling exists; see --force"),
    ("arm --print --out none/out", FAILED, "none/out: No such file or directory"),
    ("arm --print --out folder --force", FAILED, "folder: Is a directory"),
    (f"arm --print --out {LONG}", FAILED, "File name too long"),
    ("arm --print --out /dev/pvdump-none", FAILED, "files are not made below /dev"),
    ("report ''", USAGE, "a name expected"),
    ("report data extra", USAGE, "unrecognized arguments: extra"),
    ("report --json --html out data", USAGE, "not allowed with argument"),
    ("report --html", USAGE, "expected one argument"),
    ("report none", FAILED, "none: No such file or directory"),
    ("report data", FAILED, "data: no vmcore: it begins 01 01"),
    ("report dump", FAILED, "dump: a dump target: `pvdump collect dump NEW`"),
    ("report empty", FAILED, "empty: no vmcore: it begins with nothing"),
    ("report folder", FAILED, "folder: there is no dump"),
    ("report socket", FAILED, "socket: No such device or address"),
    ("report fifo", FAILED, "fifo: no file, so no vmcore"),
    ("report /dev/zero", FAILED, "/dev/zero: no file, so no vmcore"),
    ("report /proc/self/mem", FAILED, "/proc/self/mem: "),
    ("report --config here.yaml", FAILED, "/nonexistent: there is no dump"),
    ("report --config wrong.yaml", FAILED, "wrong.yaml: line 2: no setting 'kept'"),
    ("report --config none", FAILED, "none: No such file or directory"),
    ("drgn --config here.yaml", FAILED, "/nonexistent: there is no dump"),
    ("drgn --config sys.yaml", FAILED, "/proc/version: there is no dump"),
    ("drgn ''", USAGE, "a name expected"),
    ("drgn folder", FAILED, "folder: there is no dump"),
    ("drgn data", FAILED, "drgn cannot open it"),
    ("doctor now", USAGE, "unrecognized arguments: now"),
    ("doctor --jsn", USAGE, "unrecognized arguments: --jsn"),
    (
        "doctor --json extra",
        USAGE,
        "pvdump doctor: unrecognized arguments: extra; see pvdump doctor",
    ),
    ("setup --target", USAGE, "expected one argument"),
    ("setup --level", USAGE, "expected one argument"),
    ("setup --level log --level x", USAGE, "'x' is no level"),
    ("remove extra", USAGE, "unrecognized arguments: extra"),
    ("remove --yes ''", USAGE, "unrecognized arguments: ''"),
    ("setup --target xvdb", USAGE, "'xvdb': file, swap or /... expected"),
    ("setup --target=", USAGE, "'': file, swap or /... expected"),
    ("setup --level 32", USAGE, "'32' is no level"),
    ("setup --yes --dry-run", USAGE, "not allowed with argument"),
    ("setup now", USAGE, "unrecognized arguments: now"),
    ("remove --dry-run", USAGE, "unrecognized arguments: --dry-run"),
    ("booted now", USAGE, "unrecognized arguments: now"),
    ("booted --al", USAGE, "unrecognized arguments: --al"),
    ("booted --all --off", USAGE, "not allowed with argument"),
    ("info", USAGE, "required: DISK"),
    ("info ''", USAGE, "a name expected"),
    (
        "info data extra",
        USAGE,
        "pvdump info: unrecognized arguments: extra; see pvdump info --help",
    ),
    ("info --json", USAGE, "required: DISK"),
    ("info none", FAILED, "none: No such file or directory"),
    ("info data", FAILED, "data: no pvdump superblock"),
    ("info folder", FAILED, "neither a disk nor a file"),
    ("info /proc/self/mem", FAILED, "cannot be used as a disk"),
    ("daemon now", USAGE, "unrecognized arguments: now"),
    ("daemon --state ''", USAGE, "a name expected"),
    ("daemon --user nobody-has-this-name", USAGE, "'nobody-has-this-name' is no user"),
    ("daemon --store none", FAILED, "this is no dom0: there is no /dev/xen/privcmd"),
    ("enable", USAGE, "required: GUEST.cfg"),
    ("enable ''", USAGE, "a name expected"),
    ("enable data extra", USAGE, "unrecognized arguments: extra"),
    ("events now", USAGE, "unrecognized arguments: now"),
    ("events --state ''", USAGE, "a name expected"),
    ("events --state data", FAILED, "Not a directory"),
    ("top now", USAGE, "unrecognized arguments: now"),
    ("top --status ''", USAGE, "a name expected"),
    ("top --status none", FAILED, "none: No such file or directory; is its process running?"),
    ("watches", USAGE, "required: ACTION"),
    ("watches show ''", USAGE, "a name expected"),
    ("watches show none", FAILED, "none: No such file or directory"),
    ("watches show data", FAILED, "data: Connection refused"),
    ("watches show folder", FAILED, "folder: Connection refused"),
    (f"watches show {LONG}", FAILED, "AF_UNIX path too long"),
    ("watches run /x/*", USAGE, "required: COMMAND; see pvdump watches run --help"),
    ("watches run", USAGE, "required: PATTERN, COMMAND; see pvdump watches run --help"),
    ("watches show data extra", USAGE, "unrecognized arguments: extra"),
    ("watches run /x true", FAILED, "/x"),
    ("watches run --store '' /x/* true", USAGE, "a name expected"),
    ("watches run --store none /x/* true", FAILED, "no xenstore at none"),
    ("watches run --store data /x/* true", FAILED, "no xenstore at data"),
    ("watches run /x/* ''", FAILED, "no such program"),
    ("watches run /x/* ./none", FAILED, "no such program"),
    ("xenstored", USAGE, "required: --socket"),
    ("xenstored --socket ''", USAGE, "a name expected"),
    ("xenstored --socket data", FAILED, "data is there and is no socket"),
    ("xenstored --socket none/socket", FAILED, "none/socket: No such file"),
    ("xenstored --socket folder", FAILED, "folder is there and is no socket"),
    (f"xenstored --socket {LONG}", FAILED, "File name too long"),
    ("xenstored --socket new --without life", USAGE, "invalid choice: 'life'"),
    ("blkback", USAGE, "required: ACTION"),
    ("blkback attach x xvda disk", USAGE, "'x' is not a domain's number"),
    ("blkback attach -1 xvda disk", USAGE, "-1"),
    ("blkback attach \N{SUPERSCRIPT TWO} xvda disk", USAGE, "is not a domain's number"),
    ("blkback attach 99999 xvda disk", USAGE, "is not a domain's number"),
    ("blkback attach 3 '' disk", USAGE, "argument VDEV: : a name like xvdb expected"),
    ("blkback attach 3 disk disk", USAGE, "disk: a name like xvdb expected"),
    ("blkback attach 3 xvda ''", USAGE, "a name expected, an empty one found"),
    ("blkback detach 3 disk", USAGE, "disk: a name like xvdb expected"),
    ("blkback attach 3 xvda", USAGE, "required: FILE|DEVICE|NBD-URI"),
    ("blkback attach 3 xvda disk", FAILED, "no xenstore at none"),
    ("blkback detach 3 xvda --store data", FAILED, "no xenstore at data"),
    ("blkback detach 3", USAGE, "required: VDEV"),
    ("blkback show none", FAILED, "none: No such file or directory"),
    ("script", USAGE, "required: SCRIPT, -o/--out"),
    ("script script.py", USAGE, "required: -o/--out"),
    ("script '' -o new", USAGE, "a name expected"),
    ("script script.py -o ''", USAGE, "a name expected"),
    ("script script.py -o", USAGE, "expected one argument"),
    ("script script.py -o new extra", USAGE, "unrecognized arguments: extra"),
    ("script script.py -o new --memory 8", USAGE, "'8': MiB expected, 16 to 1048576"),
    ("script script.py -o new --memory 1G", USAGE, "'1G': MiB expected"),
    ("script script.py -o new --memory \N{SUPERSCRIPT TWO}0", USAGE, "MiB expected"),
    ("script script.py -o new --name a/b", USAGE, "'a/b' is no name of a guest"),
    ("script script.py -o new --name=", USAGE, "'' is no name of a guest"),
    ("script script.py -o new --with ''", USAGE, "a name expected"),
    ("script none -o new", FAILED, "none: No such file or directory"),
    ("script folder -o new", FAILED, "folder is no file"),
    ("script fifo -o new", FAILED, "fifo is no file"),
    ("script empty -o new", FAILED, "empty is empty"),
    ("script dump -o new", FAILED, "dump has more than 4 MiB"),
    ("script tiny -o new", FAILED, "tiny:1: "),
    ("script float.py -o new", FAILED, "float.py:1: 1.5: there are no floats"),
    ("script script.py -o new --with none", FAILED, "none: No such file or directory"),
    ("script script.py -o new --with folder", FAILED, "there is no module in folder"),
    ("script script.py -o new --with data", FAILED, "data: a name that ends in .py expected"),
    ("script script.py -o new --disk none", FAILED, "none: No such file or directory"),
    ("script script.py -o new --disk fifo", FAILED, "fifo is no file and no disk"),
    ("script script.py -o new --image none", FAILED, "there is no image none"),
    ("script script.py -o new --image data", FAILED, "data is no image that xl starts"),
    ("script script.py -o folder --image image", FAILED, "folder exists already"),
    ("script script.py -o data --image image", FAILED, "data exists already"),
    ("script script.py -o dangling --image image", FAILED, "dangling exists already"),
    ("script script.py -o none/new --image image", FAILED, "No such file or directory"),
    ("script script.py -o data/new --image image", FAILED, "Not a directory"),
    ("script script.py -o /dev/pvdump-none --image image", FAILED, "files are not made below /dev"),
    ("script script.py -o /proc/none --image image", FAILED, "/proc/none"),
    (f"script script.py -o {LONG} --image image", FAILED, "File name too long"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each."""
    path = tmp_path_factory.mktemp("uses")
    make(path / "ready", superblock.READY, b"")
    make(path / "dump", superblock.COMPLETE, vmcore())
    (path / "data").write_bytes(b"\1" * SIZE)
    (path / "tiny").write_bytes(b"\1")
    (path / "empty").touch()
    (path / "script.py").write_text("print(1)\n")
    (path / "float.py").write_text("1.5\n")
    (path / "image").write_bytes(b"\x7fELF")
    (path / "folder").mkdir()
    (path / "dangling").symlink_to("nowhere")
    for name, line in SETTINGS.items():
        (path / f"{name}.yaml").write_text(f"{line}\n")
    (path / "devices").symlink_to("/dev")
    os.mkfifo(path / "fifo")
    os.mknod(path / "socket", 0o140600)
    return path


def state(folder: Path) -> dict[str, tuple[int, int, int]]:
    """What would tell of any change: inode, size and time of the last write of each file."""
    found = {path.name: path.lstat() for path in folder.iterdir()}
    return {name: (one.st_ino, one.st_size, one.st_mtime_ns) for name, one in found.items()}


@pytest.mark.parametrize(("words", "code", "part"), TABLE, ids=[row[0][:60] for row in TABLE])
def test_wrong_use_is_one_line_and_changes_nothing(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: str,
    code: int,
    part: str,
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("XENSTORED_PATH", "none")
    before = state(folder)
    assert cli.main(["" if word == "''" else word for word in words.split()]) == code
    captured = capfd.readouterr()
    assert captured.out == ""
    assert part in captured.err
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("pvdump")
    assert "Traceback" not in captured.err
    assert state(folder) == before


def test_each_command_has_wrong_uses_of_both_kinds() -> None:
    for command in cli.COMMANDS:
        rows = [code for words, code, _ in TABLE if words.split()[:1] == [command]]
        assert len(rows) >= 3, command
        assert command in NO_OPTIONS or {USAGE, FAILED} <= {*rows}, command


# By a user who is not root. Those that change the system or read what root alone may read.
BY_A_USER = [
    ("arm", "; as root: `sudo pvdump arm`"),
    ("arm --check", "; as root: `sudo pvdump arm`"),
    ("disarm", "; as root: `sudo pvdump disarm`"),
    ("test", "; as root: `sudo pvdump test`"),
    ("test --crash --yes", "; as root: `sudo pvdump test`"),
    ("enable --yes web.cfg", "only root may do this: sudo pvdump enable"),
    ("setup", "only root may do this: sudo pvdump setup"),
    ("setup --dry-run", "only root may do this: sudo pvdump setup"),
    ("remove --yes", "only root may do this: sudo pvdump remove"),
    ("doctor", "only root may do this: sudo pvdump doctor"),
    ("doctor --json", "only root may do this: sudo pvdump doctor"),
    ("collect --from ready", "; as root: `sudo pvdump collect`"),
    ("collect dump out", "; as root: `sudo pvdump collect`"),
    ("list", "; as root: `sudo pvdump list`"),
    ("log", "; as root: `sudo pvdump log`"),
    ("report dump", "; as root: `sudo pvdump report`"),
    ("info dump", "; as root: `sudo pvdump info`"),
    ("prepare dump", "; as root: `sudo pvdump prepare`"),
]


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become another user")
@pytest.mark.parametrize(("words", "part"), BY_A_USER)
def test_what_root_alone_may_do_says_so(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    words: str,
    part: str,
) -> None:
    root = tmp_path / "root"
    crash = root / "crash"
    crash.mkdir(parents=True, mode=0o700)
    settings_file = tmp_path / "pvdump.yaml"
    settings_file.write_text(f"directory: {crash}\n")
    for name in ("ready", "dump"):
        make(tmp_path / name, getattr(superblock, STATES[name]), vmcore())
        (tmp_path / name).chmod(0o600)
    monkeypatch.setattr(record, "ROOT", root)
    # By a name that needs no folder above.
    monkeypatch.setattr(settings, "SYSTEM", Path(settings_file.name))
    monkeypatch.chdir(tmp_path)
    for name in cli.COMMANDS:  # a user may not read what is imported later
        cli.module(name)
    for each in ("pvdump.guest.gather", "yaml"):
        importlib.import_module(each)
    before = state(tmp_path)
    # Folders above may be root's alone, but that of the test is the user's to search.
    os.chmod(tmp_path, 0o755)  # noqa: PTH101 - by its number
    os.seteuid(USER)
    try:
        code = cli.main(words.split())
    finally:
        os.seteuid(0)
    captured = capfd.readouterr()
    assert (code, captured.out) == (FAILED, "")
    assert captured.err.endswith(f"{part}\n")
    assert captured.err.count("\n") == 1
    assert state(tmp_path) == before
