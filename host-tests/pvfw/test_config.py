"""The configuration blob: round trip, its layout, and every way in which it is refused."""

import random
import struct
import zlib

import pytest

from pvdump.arm.blob import encode, pack
from pvfw import config
from pvfw.config import Config, Target, decode
from pvfw.errors import ConfigError
from pvfw.extents import Extents

KEY = bytes(range(32))


def extents(*pairs):
    """Extents, each its first sector and its sectors."""
    return Extents(b"".join(struct.pack("<QI", *pair) for pair in pairs))


def full():
    """A configuration with one of everything."""
    made = Config()
    made.release = "6.1.0-56-cloud-amd64"
    made.targets = [
        Target("xvdc", bytes(range(16))),
        Target("xvda", bytes(range(1, 17)), KEY, extents((4096, 80), (8, 16)), True),
        Target("xvdb1", bytes(16)),
    ]
    made.level = 31
    made.algorithm, made.compression = "zstd", -1
    made.then = "poweroff"
    made.facts = {"SIZE(page)": 64, "NUMBER(PAGE_BUDDY_MAPCOUNT_VALUE)": -268435456}
    made.recipients = [bytes(range(32)), bytes(range(1, 33))]
    made.log_clear = True
    made.nonce = bytes(range(100, 132))
    return made


def same(one, other):
    """Whether two configurations say the same."""
    plain = [{**vars(each), "targets": [said(t) for t in each.targets]} for each in (one, other)]
    return plain[0] == plain[1]


def said(target):
    """What a target says, in plain values."""
    return {**vars(target), "extents": target.extents and target.extents.raw()}


def test_a_configuration_comes_back_as_it_was_made():
    assert same(decode(encode(full())), full())


def test_an_empty_configuration_comes_back_empty():
    assert same(decode(encode(Config())), Config())
    assert len(encode(Config())) == 20


def test_the_layout_is_the_documented_one():
    made = Config()
    made.targets = [Target("xvdb", bytes(range(16)))]
    made.level = 255
    made.algorithm, made.compression = "zstd", -1
    made.facts = {"SIZE(page)": -2}
    body = b"PVDCONF\n" + struct.pack("<II", 1, 100)
    body += struct.pack("<HHI", 2, 1, 20) + bytes(range(16)) + b"xvdb"
    body += struct.pack("<HHI", 3, 0, 1) + b"\xff"
    body += struct.pack("<HHI", 4, 0, 2) + b"\x01\xff"
    body += struct.pack("<HHI", 6, 0, 18) + b"\xfe" + b"\xff" * 7 + b"SIZE(page)"
    body = body[:12] + struct.pack("<I", len(body) + 4) + body[16:]
    assert encode(made) == body + struct.pack("<I", zlib.crc32(body))


def test_two_configurations_that_say_the_same_are_the_same_bytes():
    other = full()
    other.facts = dict(reversed(full().facts.items()))
    assert encode(other) == encode(full())


def test_what_stands_behind_the_blob_is_not_looked_at():
    padded = encode(full()) + b"\xff" * 4096
    assert same(decode(memoryview(padded)), full())


@pytest.mark.parametrize("bit", range(0, 8 * len(encode(full())), 7))
def test_any_changed_bit_is_noticed(bit):
    raw = bytearray(encode(full()))
    raw[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ConfigError):
        decode(raw)


@pytest.mark.parametrize("size", [*range(24), 100, len(encode(full())) - 1])
def test_a_blob_that_is_cut_off_is_refused(size):
    with pytest.raises(ConfigError, match=r"no configuration of pvdump|is damaged"):
        decode(encode(full())[:size])


def test_a_blob_larger_than_any_is_refused():
    large = pack([(100, 0, bytes(config.SIZE_MAX))])
    with pytest.raises(ConfigError, match="is damaged: it says 65564 bytes"):
        decode(large)


def test_another_version_is_named():
    raw = bytearray(encode(full()))
    struct.pack_into("<I", raw, 8, 7)
    raw[-4:] = struct.pack("<I", zlib.crc32(raw[:-4]))
    with pytest.raises(ConfigError, match="configuration version 7, this pvdump knows 1"):
        decode(raw)


def test_records_of_kinds_that_are_not_known_are_passed_over_unless_they_are_required():
    assert decode(pack([(77, 0, b"whatever"), (3, 0, b"\x05")])).level == 5
    with pytest.raises(ConfigError, match="record of kind 77 is required, not known"):
        decode(pack([(77, 1, b"whatever")]))


def place(*pairs, uuid=bytes(16), flags=0, count=None, name=b"xvda"):
    """The content of a target by extents."""
    head = struct.pack("<16s32sHH", uuid, KEY, flags, len(pairs) if count is None else count)
    return head + b"".join(struct.pack("<QI", *pair) for pair in pairs) + name


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([(3, 0, b"\x20")], "level 32, 0 to 31 expected"),
        ([(3, 0, b"")], "level of 0 bytes, not 1"),
        ([(3, 0, b"\x01"), (3, 0, b"\x01")], "too many records of kind 3"),
        ([(4, 0, b"\x02\x01")], "algorithm 2 is not known"),
        ([(4, 0, b"\x01")], "compression of 1 bytes, not 2"),
        ([(5, 0, b"explode")], "end action explode, halt, poweroff, reboot expected"),
        ([(5, 0, b"")], "end action of 0 characters"),
        ([(1, 0, b"6.1\n")], "release is no text: 6.1 $"),
        ([(1, 0, "6.1é".encode())], "release is no text: 6.1  $"),
        ([(1, 0, b"x" * 65)], "release of 65 characters"),
        ([(2, 1, KEY[:16])], "target of 0 characters"),
        ([(2, 1, KEY[:3])], "target of 0 characters"),
        ([(2, 1, KEY[:16] + b"xvdb"), (2, 1, KEY[1:17] + b"xvdb")], "target xvdb is there twice"),
        ([(2, 1, KEY[:16] + b"xvd%c" % c) for c in range(65, 82)], "too many records of kind 2"),
        ([(6, 0, bytes(8))], "fact of 0 characters"),
        ([(6, 0, b"page")], "fact of 0 characters"),
        ([(6, 0, bytes(8) + b"A"), (6, 0, KEY[:8] + b"A")], "fact A is there twice"),
        ([(6, 0, bytes(8) + b"%d" % n) for n in range(257)], "too many records of kind 6"),
        ([(7, 1, KEY[:31])], "recipient of 31 bytes, not 32"),
        ([(7, 1, KEY), (7, 1, KEY)], "a recipient is there twice"),
        ([(7, 1, bytes([n]) * 32) for n in range(17)], "too many records of kind 7"),
        ([(8, 0, b"\0")], "log in clear of 1 bytes, not 0"),
        ([(9, 0, KEY * 2)], "nonce of 64 bytes, not 32"),
        ([(10, 1, bytes(51))], "target by extents of 51 bytes"),
        ([(10, 1, place((8, 8), name=b""))], "target of 0 characters"),
        ([(10, 1, place((8, 8), count=3))], "target of 0 characters"),
        ([(10, 1, place((8, 8), flags=2))], "target by extents with flags 0x2"),
        ([(10, 1, place())], "target on xvda: 0 bytes of extents, 1 to 1024 expected"),
        ([(10, 1, place(*[(8 * n, 8) for n in range(1025)]))], "12300 bytes of extents"),
        ([(10, 1, place((8, 0)))], "extent of 0 sectors at 8: no pages"),
        ([(10, 1, place((7, 8)))], "extent of 8 sectors at 7: no pages"),
        ([(10, 1, place((8, 9)))], "extent of 9 sectors at 8: no pages"),
        ([(10, 1, place((1 << 54, 8)))], "no disk"),
        ([(10, 1, place(((1 << 64) - 8, 8)))], "no disk"),
        ([(10, 1, place((80, 16), (8, 16), (88, 8)))], "two extents have sector 88"),
        ([(10, 1, place((8, 8), (8, 8)))], "two extents have sector 8"),
        ([(10, 1, place((8, 8))), (10, 1, place((16, 8)))], "a target's UUID is there twice"),
        ([(2, 1, bytes(16) + b"xvdb"), (10, 1, place((8, 8)))], "a target's UUID is there twice"),
        ([(10, 1, place((8, 8), uuid=KEY[n : n + 16])) for n in range(17)], "too many records"),
    ],
)
def test_a_record_that_cannot_be_is_refused_in_one_line(records, message):
    with pytest.raises(ConfigError, match=message):
        decode(pack(records))


@pytest.mark.parametrize(
    ("tail", "message"),
    [
        (b"\0" * 7, "7 bytes behind the last record"),
        (struct.pack("<HHI", 3, 0, 2) + b"\0", "record of kind 3 has 2 bytes, there are 1"),
        (struct.pack("<HHI", 99, 0, 0xFFFFFFFF), "record of kind 99 has 4294967295 bytes"),
    ],
)
def test_records_that_leave_the_blob_are_refused(tail, message):
    body = b"PVDCONF\n" + struct.pack("<II", 1, 20 + len(tail)) + tail
    with pytest.raises(ConfigError, match=message):
        decode(body + struct.pack("<I", zlib.crc32(body)))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("level", n) for n in (-1, 32, 254, 256, 1 << 70)),
        *(("compression", n) for n in (-129, 128)),
        *(("algorithm", "lzo"), ("then", "explode"), ("release", ""), ("nonce", b"short")),
        *(("facts", {"A": 1 << 63}), ("facts", {"A": -(1 << 63) - 1}), ("facts", {"": 1})),
        *(("facts", {"A B": 1}), ("recipients", [b"short"]), ("recipients", [KEY, KEY])),
        *(("targets", [Target("xvdb", bytes(15))]), ("targets", [Target("x b", bytes(16))])),
        ("targets", [Target("x", bytes(16)), Target("x", bytes(16))]),
        ("targets", [Target("x", bytes(16), b"short", extents((8, 8)))]),
    ],
)
def test_nothing_is_encoded_that_would_be_refused(name, value):
    made = full()
    setattr(made, name, value)
    with pytest.raises(ConfigError):
        encode(made)


@pytest.mark.fuzz("config")
def test_whatever_the_bytes_are_there_is_a_configuration_or_the_one_error(fuzz):
    for seed in fuzz.seeds(3000):
        choose = random.Random(seed)
        records = []
        for _ in range(choose.randrange(8)):
            size = choose.choice([0, 1, 2, 8, 9, 16, 20, 32, 65, choose.randrange(300)])
            content = choose.choice([choose.randbytes(size), b"reboot", b"a" * size])
            if choose.random() < 0.2:
                pairs = [[8 * choose.randrange(9), 8 * choose.randrange(3)] for _ in range(3)]
                content = place(*pairs, uuid=choose.randbytes(16))
            records.append((choose.randrange(13), choose.choice([0, 0, 0, 1, 2]), content))
        raw = bytearray(choose.choice([pack(records), encode(full())]))
        for _ in range(choose.choice([0, 0, 1, 3])):
            raw[choose.randrange(len(raw) - 4)] = choose.randrange(256)
        if choose.random() < 0.9:
            # As if it had been made so.
            raw[-4:] = struct.pack("<I", zlib.crc32(raw[:-4]))
        if choose.random() < 0.1:
            del raw[choose.randrange(len(raw)) :]
        why = ""
        try:
            found = decode(raw)
        except ConfigError as error:
            why = str(error)
        fuzz.done["refused" if why else "read"] += 1
        assert why.isprintable()
        # What was read can be written, and says the same.
        assert why or same(decode(encode(found)), found)
