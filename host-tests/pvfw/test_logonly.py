"""pvdump.level=log: the log, notes and stacks alone, and where they go."""

import pytest
from fixtures import streamreader
from fixtures.crashedguest import GOOD, Crash
from fixtures.dyingkernel import OOPS
from fixtures.streamreader import FACTS, INDEX, LOG, MANIFEST, MEMORY, NOTES, PAGES

from pvdump.arm.blob import encode
from pvfw import config, logtext, options, stream, superblock
from pvfw.logtext import PIECE, PIECES
from xenpv.loop import SECOND

LOGGED = f"{GOOD} pvdump.level=log"
NO_DISK = LOGGED.replace("pvdump.disk=xvdb", "")
MODULE = 0x1E10000
MANY = [b"record %04d " % number + b"x" * 900 for number in range(15)]
MORE = [*MANY[:-1], b"Kernel panic - not syncing: the last one"]


def dumped(line=LOGGED, texts=OOPS, **options):
    """Dump a guest whose kernel died. Returns (the guest, the kernel)."""
    crash = Crash(line, **options)
    kernel = crash.die(texts=texts)
    crash.run()
    return crash, kernel


def without_target(texts=OOPS, **options):
    """The same without a disk that takes the dump."""
    return dumped(NO_DISK, texts, superblock=bytes(512), **options)


def in_xenstore(crash):
    """Return the text of the log in xenstore."""
    number = int(crash.reported("log/pieces"))
    return "".join(crash.reported(f"log/{piece:02}") for piece in range(number))


def shown(capsys):
    """Return the log as the console has it."""
    lines = capsys.readouterr().out.splitlines()
    begin = lines.index("pvdump: the crashed kernel's log:")
    return lines[begin + 1 : lines.index("pvdump: end of the log")]


def test_a_dump_has_the_log_the_notes_and_the_stacks_alone():
    crash, kernel = dumped()
    found = streamreader.read(bytes(crash.disk.data))
    assert found.whole
    kinds = [kind for _, kind in found.chunks]
    assert kinds == [FACTS, MEMORY, NOTES, LOG, PAGES, INDEX, MANIFEST]
    assert found.notes == crash.notes
    assert found.log.decode().splitlines() == kernel.log
    assert found.order == kernel.stacks
    block = crash.superblock()
    assert (block.state, block.level) == (superblock.COMPLETE, config.LOG_ONLY)
    assert block.dump_size < 64 << 10


def test_the_configuration_asks_for_it_too():
    made = config.Config()
    made.level = config.LOG_ONLY
    raw = encode(made)
    crash = Crash(GOOD, guest={"modules": [(MODULE, len(raw))]})
    crash.die()
    crash.guest.machine.ram[MODULE : MODULE + len(raw)] = raw
    crash.run()
    assert crash.superblock().level == config.LOG_ONLY


def test_the_console_has_the_log_the_newest_last(capsys):
    _, kernel = dumped()
    assert shown(capsys) == kernel.log


def test_the_console_says_what_the_dump_is(capsys):
    dumped()
    assert "dump complete: log, notes and stacks alone, " in capsys.readouterr().out


def test_other_levels_have_the_log_on_the_disk_alone(capsys):
    crash, _ = dumped(GOOD)
    assert "the crashed kernel's log:" not in capsys.readouterr().out
    assert crash.reported("log/pieces") == ""


def test_a_slow_console_gets_the_log_s_end(capsys, monkeypatch):
    monkeypatch.setattr(logtext, "CONSOLE_TIME", -SECOND)
    _, kernel = dumped(texts=[b"record %d" % number for number in range(120)])
    lines = shown(capsys)
    assert lines[: logtext.TURN] == kernel.log[: logtext.TURN]
    assert lines[logtext.TURN + 1 :] == kernel.log[-logtext.CONSOLE_NEWEST :]


def test_without_a_target_the_log_is_in_xenstore():
    crash, kernel = without_target()
    assert in_xenstore(crash).splitlines() == kernel.log
    assert (crash.reported("state"), crash.reported("reason")) == ("complete", "")
    assert bytes(crash.disk.data) == crash.before


def test_without_any_disk_the_log_is_in_xenstore():
    crash = Crash(NO_DISK)
    kernel = crash.die()
    crash.guest.store.rm(f"{crash.guest.home}/device/vbd")
    crash.run()
    assert in_xenstore(crash).splitlines() == kernel.log


@pytest.mark.parametrize("line", [LOGGED, LOGGED.replace("xvdb", "xvdb,xvdc"), GOOD])
def test_where_a_disk_was_named_or_more_than_the_log_was_wanted_it_is_not(line, capsys):
    line = line.replace("pvdump.disk=xvdb", "") if line == GOOD else line
    crash, _ = dumped(line, superblock=bytes(512))
    assert crash.reported("log/pieces") == ""
    assert crash.reported("state") == "failed"


def test_a_log_that_is_too_long_ends_in_xenstore_with_its_newest_lines(monkeypatch):
    monkeypatch.setattr(logtext, "PIECES", (4, 2, 1))
    crash, kernel = without_target(texts=MORE[-12:])
    text = in_xenstore(crash)
    assert 3 * PIECE < len(text) <= 4 * PIECE
    lines = text.splitlines()
    assert lines == kernel.log[-len(lines) :]
    assert int(crash.reported("log/pieces")) == 4


def test_each_piece_fits_a_servers_quota():
    crash, _ = without_target(texts=MORE[-14:])
    sizes = [len(crash.reported(f"log/{piece:02}")) for piece in range(8)]
    assert sizes[:6] == [PIECE] * 6
    assert PIECE + 64 * 3 < 2048


@pytest.mark.parametrize("room", [20, 8])
def test_where_the_guests_quota_is_nearly_used_there_are_fewer_pieces(room):
    crash = Crash(NO_DISK, superblock=bytes(512))
    kernel = crash.die(texts=MORE[-14:])
    domain = crash.guest.store.domains[crash.guest.domid]
    domain.quotas["nodes"] = crash.guest.store.usage(domain)["nodes"] + room
    crash.run()
    text = in_xenstore(crash)
    assert len(text) > 3 * PIECE
    lines = text.splitlines()
    assert lines == kernel.log[-len(lines) :]


def test_pieces_of_an_earlier_crash_are_gone():
    crash = Crash(NO_DISK, superblock=bytes(512))
    crash.die()
    crash.guest.store.write(f"{crash.guest.home}/data/pvdump/log/63", "old", f"n{1}")
    crash.run()
    assert crash.reported("log/63") == ""


def test_where_xenstore_takes_nothing_that_is_said_and_the_run_has_failed(capsys):
    crash = Crash(NO_DISK, superblock=bytes(512))
    crash.die()
    crash.guest.store.write(f"{crash.guest.home}/data/pvdump", "", "n0")
    crash.run()
    said = capsys.readouterr().out
    assert "the log is not in xenstore: " in said
    assert "dump failed: " in said


@pytest.mark.parametrize("line", [LOGGED, NO_DISK, GOOD])
def test_with_recipients_no_text_of_the_crashed_kernel_is_told(line, capsys, monkeypatch):
    monkeypatch.setattr(options.Options, "private", lambda _: True)
    crash, _ = dumped(line, superblock=None if line != NO_DISK else bytes(512))
    said = capsys.readouterr().out
    for text in ("sysrq", "panic", "Comm:", "Linux version"):
        assert text not in said
    assert crash.reported("log/pieces") == ""


def test_recipients_make_it_private_unless_the_log_may_be_told():
    chosen = options.Options()
    assert not chosen.private()
    chosen.config.recipients = [bytes(32)]
    assert chosen.private()
    chosen.config.log_clear = True
    assert not chosen.private()


@pytest.mark.parametrize("hidden", ["SYMBOL(prb)", "NUMBER(phys_base)"])
def test_a_log_that_cannot_be_read_is_said_and_the_rest_is_dumped(hidden, capsys):
    crash = Crash(LOGGED)
    crash.die(hidden=(hidden,))
    crash.run()
    found = streamreader.read(bytes(crash.disk.data))
    assert found.whole
    assert found.log == b""
    assert "why the kernel died is not known, its log cannot be read: " in capsys.readouterr().out


def test_it_says_why_the_kernel_died_before_the_disks_are_looked_at(capsys):
    without_target()
    said = capsys.readouterr().out
    assert said.index("why the kernel died: sysrq: Trigger a crash") < said.index("disk xvdb")
    assert PIECES[0] * PIECE < 128 << 10


def test_the_facts_have_the_cause():
    crash, _ = dumped(GOOD)
    found = streamreader.read(bytes(crash.disk.data))
    assert found.facts["cause"] == "sysrq: Trigger a crash; CPU: 1 UID: 0 PID: 97 Comm: sh"
    quiet, _ = dumped(GOOD, [b"all is well"])
    assert "cause" not in streamreader.read(bytes(quiet.disk.data)).facts


def test_memory_that_runs_out_in_looking_for_the_cause_costs_no_dump(capsys, monkeypatch):
    def no_memory(_):
        raise MemoryError("memory allocation failed, allocating 99 bytes")

    monkeypatch.setattr(stream, "Cause", no_memory)
    crash, _ = dumped(GOOD)
    assert crash.superblock().state == superblock.COMPLETE
    assert "its log cannot be read: out of memory" in capsys.readouterr().out
