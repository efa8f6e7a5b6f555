"""The verbs of pvdumpd's process of root's: whole when cut off anywhere, none on what runs."""

import json
import re
from pathlib import Path

import pytest
from fixtures.domctl import Cut

from pvdump.dom0 import guestfiles
from pvdump.dom0.ledger import ENDING, RUNNING
from pvdump.dom0.verbs import Refused

UUID = "3f0c1b52-6f61-4b0e-8d2e-0a1b2c3d4e5f"


def test_a_guest_is_reset_and_runs_with_its_new_channels(site):
    site.start()
    assert (site.domctl.resets, site.domctl.ran, site.domctl.pauses) == (1, 1, 0)
    assert (site.domctl.params[2], site.domctl.params[18]) == (1, 2)
    assert site.ledger.find(UUID).phase == RUNNING


def killable(site):
    """Have the process of a site's be killable at its records, too."""
    put = site.ledger.put

    def step(record):
        site.domctl.killable(lambda: put(record))
        return record

    site.ledger.put = step


def moments(site, most=1000):
    """At how many moments the start of a guest's crash kernel can be cut off."""
    killable(site)
    site.domctl.cut = most
    site.start()
    return most - site.domctl.cut


def test_a_start_that_is_cut_off_at_any_moment_is_gone_on_with(site, tmp_path):
    count = moments(site)
    assert count >= 18
    for moment in range(count):
        (tmp_path / str(moment)).mkdir()
        cut = type(site)(tmp_path / str(moment))
        killable(cut)
        cut.domctl.cut = moment
        with pytest.raises(Cut):
            cut.start()
        cut.domctl.cut = None
        cut.start()
        cut.start()
        domctl = cut.domctl
        assert (domctl.resets, domctl.ran, domctl.pauses) == (1, 1, 0), moment
        assert {domctl.params[2], domctl.params[18]} <= set(domctl.ports), moment
        assert domctl.params[2] != domctl.params[18], moment
        assert cut.ledger.find(UUID).phase == RUNNING, moment


@pytest.mark.parametrize("reason", [None, 0, 1, 3, 4])
def test_a_guest_that_wants_no_soft_reset_is_left_alone(site, reason):
    site.domctl.reason = reason
    with pytest.raises(Refused, match="domain 7 is not down for a soft reset"):
        site.start()
    assert (site.domctl.resets, site.domctl.pauses) == (0, 0)


def test_a_crash_kernel_that_asks_for_one_more_is_not_reset(site):
    site.start()
    site.domctl.reason = 5
    site.start()
    assert site.domctl.resets == 1


def test_the_next_domain_of_its_number_is_not_meant(site):
    with pytest.raises(Refused, match="is not there"):
        site.verbs().reset(7, UUID.replace("3f", "4f"))
    assert site.domctl.resets == 0


def test_a_guest_that_xl_resets_itself_is_left_alone(site):
    site.configure(type="hvm")
    with pytest.raises(Refused, match="no PVH guest"):
        site.start()


def test_a_guest_that_is_not_preserved_is_left_alone(site):
    site.configure(on_soft_reset="destroy")
    with pytest.raises(Refused, match='web: on_soft_reset is not "preserve"'):
        site.start()


def test_only_what_was_reset_is_started(site):
    site.domctl.reason, site.domctl.pauses = None, 1
    with pytest.raises(Refused, match="was not reset"):
        site.verbs().go(7, UUID, 1, 2)
    assert site.domctl.pauses == 1


def test_an_unknown_verb_is_refused_with_those_there_are(site):
    with pytest.raises(Refused, match=r"verb 'map': state, records, .* expected"):
        site.verbs().do("map", {})


@pytest.mark.parametrize(
    "arguments",
    [
        {"domid": 0, "uuid": UUID},
        {"domid": 0x7FF0, "uuid": UUID},
        {"domid": "7", "uuid": UUID},
        {"domid": True, "uuid": UUID},
        {"domid": 7, "uuid": "../../../tmp/mine"},
        {"domid": 7, "uuid": f"{UUID}\n"},
        {"domid": 7, "uuid": None},
    ],
)
def test_a_daemon_that_was_taken_over_cannot_name_another_file(site, arguments):
    with pytest.raises(Refused, match=r"(domid|uuid): .* is none"):
        site.verbs().do("end", arguments)


# What follows the dump.


def test_nothing_is_done_while_the_crash_kernel_runs(site):
    site.start()
    assert site.verbs().end(7, UUID) is None
    assert site.calls() == []


@pytest.mark.parametrize(
    ("reason", "key"), [(0, "on_poweroff"), (1, "on_reboot"), (3, "on_crash"), (4, "on_watchdog")]
)
def test_each_end_has_the_action_of_its_own(site, reason, key):
    others = {"on_poweroff", "on_reboot", "on_crash", "on_watchdog"} - {key}
    site.configure(**{key: "destroy"}, **dict.fromkeys(others, "preserve"))
    site.start()
    site.domctl.reason = reason
    done = site.verbs().end(7, UUID)
    assert (done["reason"], done["action"], done["by"]) == (reason, "destroy", "pvdumpd")
    assert site.calls() == ["destroy 7"]


def test_what_was_done_is_told_until_it_is_forgotten_and_done_once(site):
    site.start()
    site.domctl.reason = 0
    done = site.verbs().end(7, UUID)
    site.domctl.there = False
    assert site.verbs().end(7, UUID) == done
    assert site.calls() == ["destroy 7"]
    site.verbs().forget(7, UUID)
    assert site.verbs().end(7, UUID) is None
    assert site.ledger.all() == []


def test_a_guest_whose_crash_kernel_runs_is_not_forgotten(site):
    site.start()
    site.verbs().forget(7, UUID)
    assert site.ledger.find(UUID).phase == RUNNING


def test_a_guest_that_was_restarted_may_panic_again(site):
    site.start()
    site.domctl.reason = 0
    site.verbs().end(7, UUID)
    site.domctl.domid, site.domctl.reason = 8, 5
    (site.folder / f"userdata-d.7.{UUID}.libxl-json").rename(
        site.folder / f"userdata-d.8.{UUID}.libxl-json"
    )
    assert site.verbs().reset(8, UUID) is not None
    assert site.ledger.find(UUID).domid == 8


def test_a_guest_that_is_to_be_preserved_is(site):
    site.configure(on_poweroff="preserve")
    site.start()
    site.domctl.reason = 0
    assert site.verbs().end(7, UUID)["action"] == "preserve"
    assert site.calls() == []


def test_a_crash_kernel_that_crashes_has_its_memory_dumped_where_xl_does(site, monkeypatch):
    monkeypatch.setattr("pvdump.dom0.toolstack.DUMPS", site.folder / "dump")
    site.configure(on_crash="coredump_destroy")
    site.start()
    site.domctl.reason = 3
    site.verbs().end(7, UUID)
    assert site.calls() == [f"dump-core 7 {site.folder}/dump/web", "destroy 7"]


def restarting(site):
    path = site.folder / "web.cfg"
    path.write_text('name = "web"\nuuid = "11111111-1111-1111-1111-111111111111"\nmemory = 512\n')
    guestfiles.remember("web", path)
    disk = {"pdev_path": "/dev/sdb", "vdev": "xvdb", "backend": "phy", "readwrite": 1}
    site.configure(on_reboot="restart", disks=[disk])
    site.start()
    site.domctl.reason = 1


def test_a_guest_is_created_again_with_the_disks_it_had_at_its_end(site):
    restarting(site)
    assert site.verbs().end(7, UUID)["action"] == "restart"
    assert [call.split()[0] for call in site.calls()] == ["destroy", "vm-list", "create"]
    text = (site.folder / "created").read_text()
    assert text.startswith('name = "web"\n')
    assert text.index("1111") < text.index(f'uuid = "{UUID}"')
    assert 'disk = ["vdev=xvdb,backendtype=phy,access=rw,target=/dev/sdb"]' in text


def test_a_restart_that_was_cut_off_after_the_guest_had_gone_is_gone_on_with(site):
    restarting(site)
    verbs = site.verbs()
    verbs._act = lambda record: (_ for _ in ()).throw(Cut)  # killed before it acts
    with pytest.raises(Cut):
        verbs.end(7, UUID)
    assert site.ledger.find(UUID).phase == ENDING
    site.domctl.there = False
    (site.folder / f"userdata-d.7.{UUID}.libxl-json").unlink()
    site.verbs().end(7, UUID)
    assert [call.split()[0] for call in site.calls()] == ["vm-list", "create"]


def test_a_restart_that_was_cut_off_after_xl_had_created_it_is_not_repeated(site):
    restarting(site)
    (site.folder / "vms").write_text(f"UUID ID name\n{UUID}  8    web\n")
    site.verbs().end(7, UUID)
    assert [call.split()[0] for call in site.calls()] == ["destroy", "vm-list"]


def test_a_guest_whose_file_is_not_known_is_kept_and_not_tried_again(site):
    site.configure(on_reboot="restart")
    site.start()
    site.domctl.reason = 1
    for _ in range(2):
        why = site.verbs().end(7, UUID)["why"]
        assert re.search(r"^web: the file .* is not known.*pvdump enable FILE", why)
    assert site.calls() == []


def test_what_xl_says_of_a_failure_is_told(site):
    site.start()
    site.domctl.reason = 0
    (site.folder / "code").write_text("3")
    for _ in range(2):
        assert site.verbs().end(7, UUID)["why"].startswith("xl destroy 7: exit 3")
    assert site.calls() == ["destroy 7"]


def test_a_guest_that_is_gone_is_forgotten(site):
    site.start()
    site.domctl.there = False
    assert site.verbs().end(7, UUID)["by"] == "xl"


def test_a_record_that_cannot_be_read_is_none(site):
    path: Path = site.ledger.path(UUID, ".json")
    path.write_text(json.dumps({"domid": "seven"}))
    assert site.ledger.all() == []
