"""drgn's types out of BTF: they are what the C declarations say."""

import struct

import drgn
import pytest
from fixtures.btftypes import Types
from hypothesis import given, settings
from hypothesis import strategies as st

from pvdump.arm import btftypes
from pvdump.arm.btf import Btf
from pvdump.arm.btftypes import BtfError
from pvdump.report.typefinder import TypeFinder

PLATFORM = drgn.Platform(drgn.Architecture.X86_64)


@pytest.fixture
def types() -> Types:
    return Types()


def opened(*sources: Btf) -> drgn.Program:
    program = drgn.Program(PLATFORM)
    program.register_type_finder("test", TypeFinder(program, sources), enable_index=0)
    return program


def declared(types: Types, name: str) -> str:
    """A type as drgn writes it in C."""
    return str(opened(Btf(types.encode())).type(name))


def test_a_structure_has_its_members_and_bit_fields(types: Types) -> None:
    number = types.integer("int", 4)
    inner = types.struct("", 8, [("low", number, 0), ("high", number, 32)])
    members = [("count", number, 0, 0), ("flag", number, 32, 3), ("", inner, 64, 0)]
    types.struct("page", 16, members, flag=True)
    program = opened(Btf(types.encode()))
    page = program.type("struct page")
    assert page.size == 16
    assert page.member("flag").bit_field_size == 3
    assert page.member("high").bit_offset == 96
    assert "int flag : 3;" in str(page)


def test_a_structure_may_point_to_itself(types: Types) -> None:
    pointer = types.add(btftypes.PTR, "", 2)
    types.struct("list_head", 16, [("next", pointer, 0), ("prev", pointer, 64)])
    found = opened(Btf(types.encode())).type("struct list_head")
    assert found.member("next").type.type.tag == "list_head"


def test_arrays_typedefs_and_qualifiers_are_kept(types: Types) -> None:
    number = types.integer("unsigned long", 8)
    name = types.add(btftypes.TYPEDEF, "pgd_t", types.add(btftypes.CONST, "", number))
    types.struct("mm", 32, [("pgd", types.array(name, 4), 0)])
    assert "pgd_t pgd[4];" in declared(types, "struct mm")
    assert declared(types, "pgd_t") == "typedef const unsigned long pgd_t"


def test_constants_have_their_values_and_signs(types: Types) -> None:
    types.enum("zone", {"NORMAL": 2, "NONE": -1}, flag=True)
    types.enum64("wide", {"FAR": 1 << 40})
    finder = TypeFinder(drgn.Program(PLATFORM), [Btf(types.encode())])
    values = [finder.constant(name) for name in ("NORMAL", "NONE", "FAR", "OTHER")]
    assert [value and value.value_() for value in values] == [2, -1, 1 << 40, None]


def test_a_function_has_its_parameters_and_dots(types: Types) -> None:
    number = types.integer("int", 4)
    behind = struct.pack("<IIII", types.name("level"), number, 0, 0)
    proto = types.add(btftypes.FUNC_PROTO, "", number, vlen=2, behind=behind)
    types.add(btftypes.FUNC, "printk", proto)
    finder = TypeFinder(drgn.Program(PLATFORM), [Btf(types.encode())])
    found = finder.of("printk", btftypes.FUNC)
    assert found is not None
    assert (found.is_variadic, [each.name for each in found.parameters]) == (True, ["level"])


def test_a_per_cpu_variable_has_its_type(types: Types) -> None:
    rq = types.struct("rq", 64, [])
    types.add(btftypes.VAR, "runqueues", rq, behind=struct.pack("<I", 1))
    finder = TypeFinder(drgn.Program(PLATFORM), [Btf(types.encode())])
    assert finder.of("runqueues", btftypes.VAR).tag == "rq"
    assert finder.of("rq", btftypes.VAR) is None


def test_a_module_s_types_go_on_from_the_kernel_s(types: Types) -> None:
    number = types.integer("int", 4)
    kernel = Btf(types.encode())
    module = Types(types)
    module.struct("blkfront_info", 8, [("vdevice", number, 0), ("own", len(types.types) + 2, 32)])
    module.integer("u32", 4)
    program = opened(kernel, Btf(module.encode(), base=kernel))
    found = program.type("struct blkfront_info")
    assert [str(each.type) for each in found.members] == ["int", "u32"]


def test_a_type_that_is_itself_is_damage(types: Types) -> None:
    types.add(btftypes.TYPEDEF, "loop", types.add(btftypes.CONST, "", 2))
    with pytest.raises(BtfError, match="refers to itself"):
        opened(Btf(types.encode())).type("loop")


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_the_types_say_there_is_a_type_or_an_error(data: st.DataObject) -> None:
    types = Types()
    number = types.integer("int", 4)
    pointer = types.add(btftypes.PTR, "", number)
    types.add(btftypes.TYPEDEF, "name", pointer)
    types.struct(
        "page", 16, [("a", number, 0), ("b", pointer, 64), ("c", types.array(number, 2), 8)]
    )
    types.enum("e", {"one": 1})
    raw = bytearray(types.encode())
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(24, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        program = opened(Btf(bytes(raw)))
        for name in ("struct page", "name", "enum e"):
            str(program.type(name))
    except (BtfError, LookupError, ValueError, OverflowError):
        pass
