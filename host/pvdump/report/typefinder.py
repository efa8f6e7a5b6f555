"""drgn's types, made of the BTF that the kernel and its modules hold in their own memory.

Registered with a drgn program by program.py. The rules: a type is made when it is first asked for,
and the members of a structure when they are first looked at; a type that refers to itself without
a structure between is damage.
Source: Linux Documentation/bpf/btf.rst; drgn's Program.register_type_finder.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Callable, Optional

import drgn
from drgn import Object, Program, Qualifiers, TypeEnumerator, TypeKind, TypeMember, TypeParameter

from ..arm import btftypes
from ..arm.btftypes import ONE, THREE, TWO, BtfError, Type, Types

KINDS = {
    btftypes.INT: (TypeKind.INT, TypeKind.BOOL),
    btftypes.FLOAT: (TypeKind.FLOAT,),
    btftypes.STRUCT: (TypeKind.STRUCT,),
    btftypes.UNION: (TypeKind.UNION,),
    btftypes.ENUM: (TypeKind.ENUM,),
    btftypes.ENUM64: (TypeKind.ENUM,),
    btftypes.TYPEDEF: (TypeKind.TYPEDEF,),
}
QUALIFIERS = {
    btftypes.CONST: Qualifiers.CONST,
    btftypes.VOLATILE: Qualifiers.VOLATILE,
    btftypes.RESTRICT: Qualifiers.RESTRICT,
}
# Of an integer's encoding.
SIGNED, BOOL = 1, 4
# Integers that an enum of so many bytes is compatible with: unsigned, signed.
COMPATIBLE = {
    1: ("unsigned char", "signed char"),
    2: ("unsigned short", "short"),
    4: ("unsigned int", "int"),
    8: ("unsigned long", "long"),
}


class TypeFinder:
    """A finder of types.

    Args:
        program: it finds types for.
        sources: the kernel's types, then those of modules; the first that has a name has it.
    """

    def __init__(self, program: Program, sources: Sequence[Types]) -> None:
        self._program = program
        self._sources = list(sources)
        self._made: dict[tuple[int, int], drgn.Type] = {}
        self._making: set[tuple[int, int]] = set()
        self._constants: dict[str, tuple[Types, int, int]] = {}
        self._counted = 0  # sources whose constants are among them

    def __call__(
        self, program: Program, kinds: drgn.TypeKindSet, name: str, filename: Optional[str]
    ) -> Optional[drgn.Type]:
        """Find a type, as drgn asks for it; BTF names no files.

        Raises:
            BtfError: the types are damaged.
        """
        if filename is not None:
            return None
        for types in self._sources:
            for number in types.named(name):
                kind = types.type(number).kind
                if any(each in kinds for each in KINDS.get(kind, ())):
                    return self._type(types, number)
        return None

    def add(self, sources: Sequence[Types]) -> None:
        """Take types of modules. They are looked at after those that are there."""
        self._sources += sources

    def of(self, name: str, kind: int) -> Optional[drgn.Type]:
        """Return the type of a variable or function that BTF names, None where it does not.

        Args:
            name: of the variable or function.
            kind: btftypes.VAR or FUNC.

        Raises:
            BtfError: the types are damaged.
        """
        for types in self._sources:
            for number in types.named(name):
                found = types.type(number)
                if found.kind == kind:
                    return self._type(types, found.ref)
        return None

    def constant(self, name: str) -> Optional[Object]:
        """Return the constant of an enum, None where there is none.

        Raises:
            BtfError: the types are damaged.
        """
        for types in self._sources[self._counted :]:
            self._note_constants(types)
            self._counted += 1
        if name not in self._constants:
            return None
        types, number, value = self._constants[name]
        return Object(self._program, self._type(types, number), value)

    def _note_constants(self, types: Types) -> None:
        for number in types.of_kinds((btftypes.ENUM, btftypes.ENUM64)):
            for name, value in _values(types, types.type(number)):
                self._constants.setdefault(name, (types, number, value))

    def _type(self, types: Types, number: int) -> drgn.Type:
        if number == 0:
            return self._program.void_type()
        types = types.home(number)
        key = (id(types), number)
        if key not in self._made:
            if key in self._making:
                raise BtfError(f"BTF: type {number} refers to itself")
            self._making.add(key)
            try:
                self._made[key] = self._make(types, types.type(number))
            finally:
                self._making.discard(key)
        return self._made[key]

    def _make(self, types: Types, kind: Type) -> drgn.Type:
        program, name = self._program, types.name(kind.name)
        if kind.kind == btftypes.INT:
            return self._integer(name, kind)
        if kind.kind == btftypes.PTR:
            return program.pointer_type(self._type(types, kind.ref))
        if kind.kind == btftypes.ARRAY:
            ((element, _, length),) = types.elements(kind._replace(vlen=1), THREE)
            return program.array_type(self._type(types, element), length)
        if kind.kind in (btftypes.STRUCT, btftypes.UNION):
            make = program.struct_type if kind.kind == btftypes.STRUCT else program.union_type
            return make(name or None, kind.ref, self._members(types, kind))
        if kind.kind == btftypes.FWD:
            make = program.union_type if kind.flag else program.struct_type
            return make(name)
        if kind.kind in (btftypes.ENUM, btftypes.ENUM64):
            return self._enum(types, name, kind)
        if kind.kind == btftypes.TYPEDEF:
            return program.typedef_type(name, self._type(types, kind.ref))
        if kind.kind in QUALIFIERS:
            plain = self._type(types, kind.ref)
            return plain.qualified(plain.qualifiers | QUALIFIERS[kind.kind])
        if kind.kind == btftypes.TYPE_TAG:
            return self._type(types, kind.ref)
        if kind.kind == btftypes.FUNC_PROTO:
            return self._function(types, kind)
        if kind.kind == btftypes.FLOAT:
            return program.float_type(name, kind.ref)
        raise BtfError(f"BTF: a type of kind {kind.kind} where a value's is expected")

    def _integer(self, name: str, kind: Type) -> drgn.Type:
        encoding = ONE.unpack_from(kind.data, kind.at)[0] >> 24
        if encoding & BOOL:
            return self._program.bool_type(name, kind.ref)
        return self._program.int_type(name, kind.ref, bool(encoding & SIGNED))

    def _enum(self, types: Types, name: str, kind: Type) -> drgn.Type:
        values = _values(types, kind)
        if kind.ref not in COMPATIBLE:
            raise BtfError(f"BTF: an enum of {kind.ref} bytes")
        is_signed = any(value < 0 for _, value in values)
        number = self._program.int_type(COMPATIBLE[kind.ref][is_signed], kind.ref, is_signed)
        constants = [TypeEnumerator(*each) for each in values]
        return self._program.enum_type(name or None, number, constants)

    def _members(self, types: Types, kind: Type) -> list[TypeMember]:
        found = []
        for name, number, offset in types.elements(kind, THREE):
            width = 0
            if kind.flag:
                width, offset = offset >> 24, offset & 0xFFFFFF
            make = self._member(types, number, width)
            found.append(TypeMember(make, types.name(name) or None, offset))
        return found

    def _member(self, types: Types, number: int, width: int) -> Callable[[], drgn.Type | Object]:
        def make() -> drgn.Type | Object:
            kind = self._type(types, number)
            if not width:
                return kind
            return Object(self._program, kind, bit_field_size=width)

        return make

    def _function(self, types: Types, kind: Type) -> drgn.Type:
        parameters, variadic = [], False
        for name, number in types.elements(kind, TWO):
            # The three dots have neither a name nor a type.
            variadic = not name and not number
            if not variadic:
                make = self._member(types, number, 0)
                parameters.append(TypeParameter(make, types.name(name) or None))
        return self._program.function_type(self._type(types, kind.ref), parameters, variadic)


def _values(types: Types, kind: Type) -> list[tuple[str, int]]:
    """Return the names and values of an enum's constants."""
    wide = kind.kind == btftypes.ENUM64
    sign = 1 << (63 if wide else 31)
    found = []
    for name, low, *high in types.elements(kind, THREE if wide else TWO):
        value = low | high[0] << 32 if wide else low
        # Enums from before 6.0 have no flag, and values with a sign.
        is_signed = kind.flag or not wide
        found.append((types.name(name), value - 2 * sign if is_signed and value & sign else value))
    return found
