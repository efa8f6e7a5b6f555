"""The reader of BTF: what it answers of types, and that damage is its one error."""

import random
import re
import struct
from collections import Counter
from pathlib import Path

import pytest
from fixtures.btftypes import Types

from lab.root import Root, run
from pvdump.arm import btftypes
from pvdump.arm.btf import Btf, BtfError, Field
from tools.apt import Suite


@pytest.fixture
def types() -> Types:
    return Types()


def test_a_structure_has_a_size_and_members_at_offsets(types: Types) -> None:
    number = types.integer("int", 4)
    types.struct("page", 64, [("flags", number, 0), ("_mapcount", number, 384)])
    found = Btf(types.encode(), ["page"])
    assert found.size("page") == 64
    assert found.field("page", "_mapcount") == Field(384, 4, 0, None)


def test_what_is_not_there_is_none(types: Types) -> None:
    number = types.integer("int", 4)
    types.struct("page", 64, [("flags", number, 0)])
    types.enum("pageflags", {"PG_lru": 5})
    types.add(btftypes.FWD, "folio")
    found = Btf(types.encode(), ["page", "folio", "zone", "pageflags"])
    assert found.size("zone") is None
    assert found.size("folio") is None
    assert found.size("pageflags") is None
    assert found.field("page", "private") is None
    assert found.field("page", "flags.f") is None
    assert found.value("pageflags", "PG_slab") is None
    assert found.value("page", "flags") is None


def test_members_of_anonymous_structures_and_unions_are_the_structures_own(types: Types) -> None:
    number = types.integer("long", 8)
    inner = types.struct("", 16, [("mapping", number, 0), ("private", number, 64)])
    outer = types.union("", 24, [("other", number, 0), ("", inner, 64)])
    types.struct("page", 64, [("flags", number, 0), ("", outer, 64)])
    assert Btf(types.encode(), ["page"]).field("page", "private") == Field(192, 8, 0, None)


def test_a_dotted_path_goes_into_named_members(types: Types) -> None:
    number = types.integer("long", 8)
    inner = types.struct("list_head", 16, [("next", number, 0), ("prev", number, 64)])
    types.struct("page", 64, [("lru", inner, 64)])
    assert Btf(types.encode(), ["page"]).field("page", "lru.prev") == Field(128, 8, 0, None)


def test_names_and_qualifiers_of_a_type_are_followed(types: Types) -> None:
    number = types.integer("int", 4)
    counter = types.struct("", 4, [("counter", number, 0)])
    kind = types.add(btftypes.TYPEDEF, "atomic_t", counter)
    for each in (btftypes.CONST, btftypes.VOLATILE, btftypes.RESTRICT, btftypes.TYPE_TAG):
        kind = types.add(each, "", kind)
    types.struct("page", 64, [("_refcount", kind, 416)])
    found = Btf(types.encode(), ["page"])
    assert found.field("page", "_refcount") == Field(416, 4, 0, None)
    assert found.field("page", "_refcount.counter") == Field(416, 4, 0, None)


def test_an_array_has_a_length_and_the_size_of_the_whole(types: Types) -> None:
    area = types.struct("free_area", 88, [])
    types.struct("zone", 2000, [("free_area", types.array(types.array(area, 3), 11), 2048)])
    found = Btf(types.encode(), ["zone"])
    assert found.field("zone", "free_area") == Field(2048, 88 * 33, 0, 11)


def test_a_pointer_has_eight_bytes(types: Types) -> None:
    types.struct("page", 64, [("mapping", types.add(btftypes.PTR, "", 0), 0)])
    assert Btf(types.encode(), ["page"]).field("page", "mapping") == Field(0, 8, 0, None)


def test_bit_fields_are_told_apart_in_both_forms(types: Types) -> None:
    number = types.integer("int", 4)
    narrow = types.integer("int", 4, bits=3)
    types.struct("new", 8, [("a", number, 0, 0), ("b", number, 35, 5)], flag=True)
    types.struct("old", 8, [("a", number, 0), ("b", narrow, 35)])
    found = Btf(types.encode(), ["new", "old"])
    assert [found.field("new", name) for name in "ab"] == [(0, 4, 0, None), (35, 4, 5, None)]
    assert [found.field("old", name) for name in "ab"] == [(0, 4, 0, None), (35, 4, 3, None)]


def test_enums_of_both_widths_have_values_with_their_sign(types: Types) -> None:
    types.enum("e", {"least": 0, "most": 0xFFFFFFFF})
    types.enum("signed", {"minus": -129}, flag=True)
    types.enum64("wide", {"most": (1 << 64) - 1})
    types.enum64("deep", {"minus": -(1 << 40), "plus": 1 << 40}, flag=True)
    found = Btf(types.encode(), ["e", "signed", "wide", "deep"])
    assert (found.value("e", "least"), found.value("e", "most")) == (0, 0xFFFFFFFF)
    assert found.value("signed", "minus") == -129
    assert found.value("wide", "most") == (1 << 64) - 1
    assert (found.value("deep", "minus"), found.value("deep", "plus")) == (-(1 << 40), 1 << 40)


def test_types_of_one_name_that_differ_have_no_answer(types: Types) -> None:
    number = types.integer("int", 4)
    types.struct("page", 64, [("flags", number, 0), ("_mapcount", number, 384)])
    types.struct("page", 64, [("flags", number, 0), ("_mapcount", number, 416)])
    found = Btf(types.encode(), ["page"])
    assert found.size("page") == 64
    assert found.field("page", "flags") == Field(0, 4, 0, None)
    assert found.field("page", "_mapcount") is None


def test_a_name_that_is_another_ones_end_is_found(types: Types) -> None:
    types.struct("subpage", 8, [])
    at = types.names.index(b"page\0")
    types.types.append(struct.pack("<III", at, btftypes.STRUCT << 24, 64))
    assert Btf(types.encode(), ["page"]).size("page") == 64


def test_a_kind_that_is_not_known_is_passed_over_where_the_kernel_tells_its_size(
    types: Types,
) -> None:
    types.add(40, "new", vlen=3, behind=bytes(2 + 3 * 5))
    types.struct("page", 64, [])
    with pytest.raises(BtfError, match="type 1 is of an unknown kind, 40"):
        Btf(types.encode(), ["page"])
    assert Btf(types.encode(kinds={40: (2, 5)}), ["page"]).size("page") == 64


def test_more_members_than_older_kernels_could_say_are_read(types: Types) -> None:
    number = types.integer("char", 1)
    members = [("a", number, 0)] * 70000 + [("last", number, 8)]
    types.struct("page", 64, members)
    assert Btf(types.encode(), ["page"]).field("page", "last") == Field(8, 1, 0, None)


def damaged(**changes: int) -> bytes:
    """A good BTF, with fields of the header changed."""
    types = Types()
    types.struct("page", 64, [("flags", types.integer("long", 8), 0)])
    raw = bytearray(types.encode())
    fields = ["magic", "version", "flags", "length", "types", "types_len", "text", "text_len"]
    values = dict(zip(fields, struct.unpack_from("<HBBIIIII", raw), strict=True))
    struct.pack_into("<HBBIIIII", raw, 0, *{**values, **changes}.values())
    return bytes(raw)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "no BTF: 0 bytes"),
        (damaged(magic=0x9FEB), "no BTF of version 1"),
        (damaged(version=2), "no BTF of version 1"),
        (damaged(length=8), "a header of 8 bytes"),
        (damaged(length=1 << 31), "a header of 2147483648 bytes"),
        (damaged(types_len=1 << 31), "a section of 2147483648 bytes"),
        (damaged(types=0xFFFFFFFF), "a section of"),
        (damaged(text_len=0), "not NUL-terminated"),
        (damaged(text=0), "not NUL-terminated"),
        (damaged(types_len=39), "does not end with the types"),
        (damaged(types_len=8), "does not end with the types"),
    ],
)
def test_a_damaged_header_is_refused_in_one_line(raw: bytes, message: str) -> None:
    with pytest.raises(BtfError, match=message):
        Btf(raw, ["page"])


def test_a_type_that_is_its_own_name_is_refused(types: Types) -> None:
    types.add(btftypes.TYPEDEF, "t", 1)
    types.struct("page", 64, [("flags", 1, 0)])
    with pytest.raises(BtfError, match="a chain of more than 32"):
        Btf(types.encode(), ["page"]).field("page", "flags")


def test_structures_that_hold_each_other_end(types: Types) -> None:
    types.struct("page", 64, [("", 2, 0)] * 1000)
    types.struct("", 64, [("", 1, 0)] * 1000)
    assert Btf(types.encode(), ["page"]).field("page", "flags") is None


@pytest.mark.parametrize("number", [0, 7, 0xFFFFFFFF])
def test_a_reference_to_no_type_is_refused(types: Types, number: int) -> None:
    types.struct("page", 64, [("flags", number, 0)])
    with pytest.raises(BtfError, match=f"no type {number}"):
        Btf(types.encode(), ["page"]).field("page", "flags")


def test_a_name_outside_the_names_is_refused(types: Types) -> None:
    types.struct("page", 64, [("flags", types.integer("int", 4), 0)])
    name = struct.pack("<II", types.names.index(b"flags"), 1)
    raw = types.encode().replace(name, struct.pack("<II", 0xFFFFFFFF, 1))
    with pytest.raises(BtfError, match="a name at 4294967295"):
        Btf(raw, ["page"]).field("page", "flags")


@pytest.mark.parametrize("suite", ["bookworm", "trixie"])
def test_a_kernels_structures_are_those_that_bpftool_reads(
    kernel_types, suite: str, tmp_path: Path
) -> None:
    path = tmp_path / "vmlinux.btf"
    path.write_bytes(kernel_types(suite))
    root = Root(Suite("trixie").unpack(["bpftool"]))
    done = run(root, "/usr/sbin/bpftool", "btf", "dump", "file", str(path))
    assert done.returncode == 0, done.stdout[-500:]
    structures = re.findall(
        r"^\[\d+\] STRUCT '(\w+)' size=(\d+) vlen=\d+\n((?:\t.*\n)*)", done.stdout, re.MULTILINE
    )
    counts = Counter(name for name, *_ in structures)
    once = [row for row in structures if counts[row[0]] == 1][::20]
    assert len(once) > 200
    found = Btf(path.read_bytes(), [name for name, *_ in once])
    for name, size, lines in once:
        assert found.size(name) == int(size)
        for member, bits, width in re.findall(
            r"\t'(\w+)' type_id=\d+ bits_offset=(\d+)(?: bitfield_size=(\d+))?", lines
        ):
            field = found.field(name, member)
            assert field is not None
            assert (field.bits, field.width) == (int(bits), int(width or 0)), f"{name}.{member}"


# Types that cost more than a kernel's.


def test_structures_that_all_lead_to_a_large_one_are_refused(types: Types) -> None:
    large = [("other", 2001, 0)] * 1000
    for _ in range(2000):
        types.struct("page", 64, [("", 2001, 0)])
    types.struct("", 64, large)
    found = Btf(types.encode(), ["page"])
    with pytest.raises(BtfError, match="would be looked at"):
        found.field("page", "flags")


def test_more_structures_of_a_name_than_any_kernel_has_are_refused(types: Types) -> None:
    types.struct("page", 64, [])
    types.types *= 600_000
    found = Btf(types.encode(), ["page"])
    with pytest.raises(BtfError, match="would be looked at"):
        found.field("page", "flags")


def test_a_name_that_is_there_again_and_again_is_refused(types: Types) -> None:
    types.struct("page", 64, [])
    types.names += b"page\0" * 70_000
    with pytest.raises(BtfError, match="page is more than 65536 times"):
        Btf(types.encode(), ["page"])


NAMES = ("page", "zone", "pageflags", "wide")


def ask(raw: bytes) -> list[object]:
    """Whatever is asked of such types."""
    found = Btf(raw, NAMES)
    answers: list[object] = [found.size(name) for name in NAMES]
    answers += [found.field("page", path) for path in ("flags", "lru.prev", "private", "bits")]
    answers += [found.field("zone", path) for path in ("free_area", "pages.private")]
    return [*answers, found.value("pageflags", "PG_lru"), found.value("wide", "PG_lru")]


def sample(choose: random.Random) -> bytes:
    """Types with one of everything."""
    types = Types()
    number = types.integer("long", 8, choose.choice([64, 64, 3]))
    inner = types.struct("list_head", 16, [("next", number, 0), ("prev", number, 64)])
    union = types.union("", 16, [("lru", inner, 0), ("private", number, 0)])
    pages = types.array(types.add(btftypes.CONST, "", inner), choose.randrange(12))
    page = types.struct(
        "page",
        64,
        [("flags", number, 0, 0), ("", union, 64, 0), ("bits", number, 200, 7)],
        flag=True,
    )
    types.struct("zone", 999, [("free_area", pages, 0), ("pages", page, choose.getrandbits(20))])
    types.enum("pageflags", {"PG_lru": choose.getrandbits(32)}, choose.random() < 0.5)
    types.enum64("wide", {"PG_lru": choose.getrandbits(64)}, choose.random() < 0.5)
    types.add(choose.choice([btftypes.FLOAT, btftypes.FUNC, btftypes.FWD]), "page")
    return types.encode(kinds={40: (4, 8)} if choose.random() < 0.3 else None)


@pytest.mark.fuzz("btf")
def test_whatever_the_bytes_are_there_is_an_answer_or_the_one_error(fuzz) -> None:
    for seed in fuzz.seeds(2000):
        choose = random.Random(seed)
        raw = bytearray(sample(choose))
        for _ in range(choose.choice([0, 1, 1, 2, 5, 20])):
            at = choose.randrange(len(raw))
            raw[at] = choose.choice([0, 1, 255, raw[at] ^ 1 << choose.randrange(8)])
        if choose.random() < 0.1:
            del raw[choose.randrange(len(raw)) :]
        why = ""
        try:
            ask(bytes(raw))
        except BtfError as error:
            why = str(error)
        fuzz.done["refused" if why else "answered"] += 1
        assert why.isprintable()
