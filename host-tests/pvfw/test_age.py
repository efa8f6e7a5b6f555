"""The age files of the image, opened by those that others wrote: Debian's age, and pyrage."""

import io
import random

import pyrage
import pytest
from fixtures.agetools import Person

import hw
from pvfw import age, chunks, sealed
from pvfw.errors import DumpError
from pvxen.guest import EmbeddedGuest

PAGE = 4096
PIECE = age.PIECE_SIZE
SIZES = (0, 1, 15, 65535, 65536, 65537, 131072, 131073, 1_500_000)
NONCE = bytes(range(32))
LOW_ORDER = (bytes(32), b"\1" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f")
PEOPLE = [Person() for _ in range(16)]
NOISE = random.Random(5).randbytes(2 << 20)


class Kept:
    """A sink that keeps what it is given.

    Args:
        room: bytes that it takes.

    Attributes: content, bytes; granted, the frames that were given to own(), as they were.
    """

    def __init__(self, room=1 << 30):
        self.content = bytearray()
        self.granted = set()
        self.room = room
        self.ended = False

    async def own(self, gfn, count):
        if len(self.content) + count * PAGE > self.room:
            raise DumpError("full")
        self.granted.update(range(gfn, gfn + count))
        self.content += hw.mem(gfn * PAGE, count * PAGE)

    async def wait(self, size):
        assert size <= len(self.content)

    async def end(self):
        self.ended = True
        return len(self.content)

    def chunks(self):
        """Return the header and the payload of each chunk."""
        found, at = [], 0
        while at < len(self.content):
            header = chunks.decode(self.content[at:], 77, at)
            assert header.kind == chunks.AGE
            found.append((header, bytes(self.content[at + 48 : at + 48 + header.size])))
            at += header.length()
        return found

    def file(self):
        return b"".join(payload for _, payload in self.chunks())


def finish(coroutine):
    with pytest.raises(StopIteration) as ended:
        coroutine.send(None)
    return ended.value.value


def guest(**options):
    return EmbeddedGuest(**options)


def keys(people, nonce=NONCE):
    return age.Keys([person.public for person in people], nonce)


def begun(target, drawn):
    """A sink that has begun a dump to a target."""
    sink = sealed.Sealed(drawn)
    sink.begin(target, 77)
    return sink


def encrypted(content, people, sizes=(4096, 7, 100_000)):
    """Encrypt by put() of pieces of the sizes by turns. Returns the Kept."""
    guest()
    target = Kept()
    sink = begun(target, keys(people))
    at = turn = 0
    while at < len(content):
        finish(sink.put(content[at : at + sizes[turn]]))
        at += sizes[turn]
        turn = (turn + 1) % len(sizes)
    assert finish(sink.end()) == len(target.content)
    assert target.ended
    return target


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("number", [1, 2, 16])
def test_every_recipient_gets_the_content_by_either_tool(number, size, tmp_path):
    file = encrypted(NOISE[:size], PEOPLE[:number]).file()
    for person in (PEOPLE[0], PEOPLE[number - 1]):
        assert person.by_pyrage(file) == NOISE[:size]
        assert person.by_age(file, tmp_path) == (NOISE[:size], 0)


def test_nobody_else_gets_anything(tmp_path):
    file = encrypted(NOISE[:70000], PEOPLE[:2]).file()
    with pytest.raises(pyrage.DecryptError):
        PEOPLE[2].by_pyrage(file)
    assert PEOPLE[2].by_age(file, tmp_path) == (b"", 1)


def test_chunks_stand_one_behind_the_other_with_little_between(tmp_path):
    target = encrypted(NOISE, PEOPLE[:1])
    at = 0
    for header, payload in target.chunks():
        assert header.value == at
        at += len(payload)
    assert [header.count for header, _ in target.chunks()][-2:] == [0, 1]
    assert len(target.content) < 1.002 * len(NOISE) + 2 * PAGE


@pytest.mark.parametrize("number", range(1, 17))
def test_chunks_of_a_long_file_never_outgrow_their_buffer(number, monkeypatch):
    # What is left over of a piece is 64 bytes more each time: it comes round after 64 pieces.
    guest()
    guards, real = [], hw.alloc_pages

    def alloc_pages(count):
        at = real(count + 1)
        guards.append(at + count * PAGE)
        return at

    monkeypatch.setattr(hw, "alloc_pages", alloc_pages)
    target = Kept()
    sink = begun(target, keys(PEOPLE[:number]))
    content = b"".join(NOISE for _ in range(3))
    finish(sink.put(content))
    finish(sink.end())
    assert PEOPLE[0].by_pyrage(target.file()) == content
    lengths = {header.length() for header, _ in target.chunks()[:-1]}
    assert lengths == {16 * PAGE, 17 * PAGE}
    assert len(guards) == 3
    assert not any(any(hw.mem(at, PAGE)) for at in guards)


def test_frames_are_copied_and_stand_behind_the_end_of_a_page():
    at = guest().machine.alloc_pages(40)
    hw.mem(at, 40 * PAGE)[:] = NOISE[: 40 * PAGE]
    target = Kept()
    sink = begun(target, keys(PEOPLE[:1]))
    finish(sink.put(b"header"))
    finish(sink.frames(at // PAGE, 40))
    finish(sink.put(b"more"))
    finish(sink.own(at // PAGE, 1))
    finish(sink.end())
    text = b"header".ljust(PAGE, b"\0") + NOISE[: 40 * PAGE] + b"more".ljust(PAGE, b"\0")
    assert PEOPLE[0].by_pyrage(target.file()) == text + NOISE[:PAGE]
    assert not target.granted & set(range(at // PAGE, at // PAGE + 40))


def test_no_frame_that_held_plaintext_is_ever_granted(monkeypatch):
    clear = set()
    real = hw.seal

    def seal(key, counter, is_last, piece, out):
        assert bytes(out).find(bytes(piece)) < 0
        clear.update(piece_frames)
        real(key, counter, is_last, piece, out)

    guest()
    target = Kept()
    sink = begun(target, keys(PEOPLE[:1]))
    first = sink._piece // PAGE
    piece_frames = range(first, first + sealed.PIECE_PAGES)
    monkeypatch.setattr(hw, "seal", seal)
    finish(sink.put(NOISE))
    finish(sink.end())
    assert clear
    assert target.granted
    assert not clear & target.granted


def test_no_key_and_number_is_used_for_two_contents(monkeypatch):
    used = {}
    real = hw.seal

    def seal(key, counter, is_last, piece, out):
        name = bytes(key), counter, bool(is_last)
        assert used.setdefault(name, bytes(piece)) == bytes(piece)
        real(key, counter, is_last, piece, out)

    monkeypatch.setattr(hw, "seal", seal)
    guest()
    drawn = keys(PEOPLE[:2])
    for attempt in range(3):
        sink = begun(Kept(1 << 19 if attempt < 2 else 1 << 30), drawn)
        full = False
        try:
            finish(sink.put(NOISE[attempt:]))
        except AssertionError:
            raise
        except DumpError:
            full = True
        assert full == (attempt < 2)
        if full:
            with pytest.raises(DumpError, match="cannot go on"):
                sink.end().send(None)
        else:
            finish(sink.end())
    assert len({key for key, _, _ in used}) == 3 * 3


def test_two_runs_with_one_nonce_have_keys_of_their_own():
    files = []
    for options in ({}, {"seed": 1}, {"now": 2_000_000_000_000}):
        guest(**options)
        files.append(keys(PEOPLE[:1]).file())
    assert len({header for header, _ in files}) == len({key for _, key in files}) == 3


@pytest.mark.parametrize("other", ["nonce", "entropy", "time"])
def test_each_source_alone_makes_other_keys(other, monkeypatch):
    guest()
    monkeypatch.setattr(hw, "entropy", lambda: b"\1" * 80)
    monkeypatch.setattr(age, "now_utc", lambda: 1)
    monkeypatch.setattr(hw, "now", lambda: 5)
    before = keys(PEOPLE[:1]).file()
    assert keys(PEOPLE[:1]).file() == before
    if other == "entropy":
        monkeypatch.setattr(hw, "entropy", lambda: b"\2" * 80)
    elif other == "time":
        monkeypatch.setattr(hw, "now", lambda: 6)
    nonce = bytes(32) if other == "nonce" else NONCE
    assert keys(PEOPLE[:1], nonce).file()[1] != before[1]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_a_recipient_with_which_anybody_could_decrypt_is_an_error(point):
    guest()
    with pytest.raises(DumpError, match="is no key"):
        age.Keys([PEOPLE[0].public, point], NONCE).file()


def by_pyrage_as_far_as_it_goes(person, content):
    """Return what pyrage writes until it fails."""
    out = io.BytesIO()
    identity = pyrage.x25519.Identity.from_str(person.identity)
    with pytest.raises((pyrage.DecryptError, OSError)):
        pyrage.decrypt_io(io.BytesIO(content), out, [identity])
    return out.getvalue()


@pytest.mark.parametrize("more", [0, 1, 500, PIECE])
@pytest.mark.parametrize("pieces", range(4))
def test_a_file_without_its_end_opens_up_to_the_last_whole_piece(pieces, more, tmp_path):
    whole = encrypted(NOISE[: 5 * PIECE + 1000], PEOPLE[:1]).file()
    head = len(whole) - 5 * (PIECE + 16) - 1016
    cut = whole[: head + pieces * (PIECE + 16) + more]
    assert PEOPLE[0].by_age(cut, tmp_path) == (NOISE[: pieces * PIECE], 1)
    assert by_pyrage_as_far_as_it_goes(PEOPLE[0], cut) == NOISE[: pieces * PIECE]
