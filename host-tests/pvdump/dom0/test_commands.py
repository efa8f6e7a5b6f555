"""`pvdump enable`, `doctor`, `events` and `top` in a dom0 whose daemon is there, or is not."""

import json
import os
import re

import pytest
from fixtures.guestroot import GuestRoot

from pvdump import cli
from pvdump.dom0 import doctor, enable, guestfiles, top
from pvdump.dom0.events import Events
from pvdump.dom0.status import Row, Status
from pvdump.watches.server import StatusServer

FILE = 'name = "web"\ntype = "pvh"\nmemory = 512\n'
ROW = Row(7, "3f0c", "web\x1b[2J", "pvh", False, "reset")


@pytest.fixture
def run(tmp_path, monkeypatch):
    """The daemon's folder, and the places where files lie, for a person who is root."""
    folder = tmp_path / "run"
    (folder / "daemon").mkdir(parents=True)
    (tmp_path / "xen").mkdir()
    monkeypatch.setattr(enable, "RUN", folder)
    monkeypatch.setattr(guestfiles, "KNOWN", tmp_path / "state/files.json")
    monkeypatch.setattr(guestfiles, "FOLDERS", (tmp_path / "xen",))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return folder


@pytest.fixture
def daemon(run):
    with StatusServer(run / "daemon/status", lambda: Status([ROW])):
        yield run


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "xen/web.cfg"
    path.parent.mkdir(exist_ok=True)
    path.write_text(FILE)
    return path


def test_enable_writes_the_line_and_keeps_a_copy(daemon, file, capsys):
    file.chmod(0o640)
    assert cli.main(["enable", "--yes", str(file)]) == 0
    assert file.read_text() == f'{FILE}on_soft_reset = "preserve"\n'
    assert file.stat().st_mode & 0o777 == 0o640
    copy = file.with_name("web.cfg.before-pvdump")
    assert copy.read_text() == FILE
    # It may have a password of VNC.
    assert copy.stat().st_mode & 0o777 == 0o640
    assert '+on_soft_reset = "preserve"' in capsys.readouterr().out
    assert guestfiles.find("web") == file


def test_enable_refuses_while_the_daemon_is_off(run, file, capsys):
    assert cli.main(["enable", "--yes", str(file)]) == 1
    assert file.read_text() == FILE
    assert re.search("pvdumpd does not answer.*enable --now pvdumpd", capsys.readouterr().err)


def test_enable_asks(daemon, file, capsys):
    assert cli.main(["enable", str(file)]) == 1
    assert file.read_text() == FILE
    assert "no terminal to ask on; say --yes" in capsys.readouterr().err


def test_enable_changes_nothing_where_the_line_is_and_remembers_the_file(daemon, file, capsys):
    file.write_text(f'{FILE}on_soft_reset = "preserve"\n')
    assert cli.main(["enable", str(file)]) == 0
    assert "nothing is changed" in capsys.readouterr().out
    assert guestfiles.known() == {"web": file}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('name = "web"\ntype = "hvm"\n', "an HVM guest needs no line"),
        ('name = "web"\n', "a PV guest has no kexec"),
        ('type = "pvh"\n', "has no name"),
        ("<domain/>", "line 1: not as xl.cfg"),
    ],
)
def test_enable_refuses_what_the_line_does_not_help(daemon, file, capsys, text, why):
    file.write_text(text)
    assert cli.main(["enable", "--yes", str(file)]) == 1
    assert file.read_text() == text
    assert why in capsys.readouterr().err


def test_enable_does_not_overwrite_an_earlier_copy(daemon, file, capsys):
    file.with_name("web.cfg.before-pvdump").write_text("mine")
    assert cli.main(["enable", "--yes", str(file)]) == 1
    assert file.read_text() == FILE
    assert "is there already: move it away first" in capsys.readouterr().err


def test_doctor_names_guests_that_would_be_lost_with_the_line_that_mends_it(run, file, tmp_path):
    (tmp_path / "xen/db.cfg").write_text('name = "db"\ntype = "hvm"\n')
    (tmp_path / "xen/good.cfg").write_text(FILE.replace("web", "good") + "on_soft_reset='preserve'")
    (tmp_path / "xen/xl.conf").write_text("autoballoon=0\n")
    found = {
        seen.what.split()[0]: seen for seen in doctor.guests(guestfiles.lying((tmp_path / "xen",)))
    }
    assert {name: seen.good for name, seen in found.items()} == {
        "web": False,
        "db": True,
        "good": True,
    }
    assert found["web"].mend == f"pvdump enable {file}"


def test_doctor_in_dom0_is_about_its_guests(daemon, file, tmp_path, monkeypatch, capsys):
    root = GuestRoot(tmp_path / "root")
    root.write("proc/xen/capabilities", "control_d\n")
    monkeypatch.setattr("pvdump.guest.doctor.ROOT", root.path)
    monkeypatch.setattr("pvdump.guest.xen.read_store", lambda path: root.store)
    monkeypatch.setattr(guestfiles.lying, "__defaults__", ((tmp_path / "xen",),))
    assert cli.main(["doctor"]) == 1
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == f"      mend: pvdump enable {file}"
    enabled = file.read_text() + 'on_soft_reset = "preserve"\n'
    file.write_text(enabled)
    monkeypatch.setattr(doctor.daemon, "__defaults__", (daemon / "daemon/status",))
    assert cli.main(["doctor", "--json"]) == 0
    findings = json.loads(capsys.readouterr().out)["findings"]
    assert [finding["good"] for finding in findings] == [True, True]


def test_doctor_says_whether_the_daemon_runs(daemon):
    socket = daemon / "daemon/status"
    assert doctor.daemon(socket).good
    assert not doctor.daemon(socket.with_name("none")).good


def test_events_are_shown_as_lines_and_as_json(tmp_path, capsys):
    Events(tmp_path).add("reset", 7, "web\x1b[2J")
    assert cli.main(["events", "--state", str(tmp_path)]) == 0
    assert re.search(r"  reset  web\\x1b\[2J  domid=7$", capsys.readouterr().out.strip())
    assert cli.main(["events", "--json", "--state", str(tmp_path)]) == 0
    event = json.loads(capsys.readouterr().out)
    assert (event["event"], event["domid"], event["guest"]) == ("reset", 7, "web\x1b[2J")


def test_no_events_are_a_line_and_no_json(tmp_path, capsys):
    assert cli.main(["events", "--state", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == f"no events in {tmp_path / 'none'}\n"
    assert cli.main(["events", "--json", "--state", str(tmp_path / "none")]) == 0
    assert capsys.readouterr().out == ""


def test_events_have_a_bound(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("pvdump.dom0.events.SIZE_MAX", 1000)
    events = Events(tmp_path)
    for number in range(100):
        events.add("panic", number, "web")
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 2400
    assert cli.main(["events", "--json", "--state", str(tmp_path)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert json.loads(last)["domid"] == 99


def test_top_shows_the_guests_and_no_name_moves_the_terminal(daemon, capsys):
    assert cli.main(["top", "--once", "--status", str(daemon / "daemon/status")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["domain", "guest", "type", "state", "last", "event"]
    assert lines[1].split() == ["7", r"web\x1b[2J", "pvh", "up", "reset"]


def test_top_without_a_daemon_says_so(tmp_path, capsys):
    assert cli.main(["top", "--status", str(tmp_path / "none")]) == 1
    assert re.search("pvdumpd does not answer.*enable --now pvdumpd", capsys.readouterr().err)


def test_top_has_a_row_for_a_domain_that_libxl_does_not_know():
    text = top.table(Status([Row(3, "uuid", "", "", True, "")]))
    assert text.splitlines()[1].split() == ["3", "uuid", "-", "down", "-"]
