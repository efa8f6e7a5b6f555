"""The types in a BTF, as its bytes have them: where each begins, what it is called.

Used by btf.py, which answers questions on them, and by the report, which makes drgn's types of
them. The rules: one pass over the types notes where each begins and which have a name that is
asked for; nothing else is looked at before it is needed. Every offset, count and reference is
checked, so whatever the bytes are, the answer is a value, None, or BtfError. Only little-endian
BTF of 64-bit kernels is read.
Source: Linux Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Optional

from pvfw.errors import DumpError

TYPES_MAX = 0xFFFFF  # the kernel's own bound, BTF_MAX_TYPE
CHAIN_MAX = 32  # names, qualifiers and dimensions of one type
PLACES_MAX = 1 << 16  # of a name, which ends longer ones as well: "page" some hundred today
MAGIC, VERSION = 0xEB9F, 1
POINTER = 8
HEADER = struct.Struct("<HBBIIIII")  # magic, version, flags, its length, types at, length, strings
TYPE = struct.Struct("<III")  # name, info, size or type
THREE, TWO, ONE = struct.Struct("<III"), struct.Struct("<II"), struct.Struct("<I")

INT, PTR, ARRAY, STRUCT, UNION, ENUM, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC = range(1, 13)
FUNC_PROTO, VAR, DATASEC, FLOAT, DECL_TAG, TYPE_TAG, ENUM64 = range(13, 20)
# What stands behind the 12 bytes of each type: bytes once, and bytes for each of its vlen elements.
BEHIND = {
    **dict.fromkeys((PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG), (0, 0)),
    **dict.fromkeys((INT, VAR, DECL_TAG), (4, 0)),
    **dict.fromkeys((STRUCT, UNION, DATASEC, ENUM64), (0, 12)),
    **dict.fromkeys((ENUM, FUNC_PROTO), (0, 8)),
    ARRAY: (12, 0),
}
ALIASES = (TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG)


class BtfError(DumpError):
    """The bytes are no BTF, or damaged."""


class Type(NamedTuple):
    """A type as it stands in the bytes.

    Attributes:
        name: the offset of its name, 0 without one.
        kind: INT to ENUM64.
        vlen: number of its members, values or parameters.
        flag: what it says depends on the kind.
        ref: its size, or the type that it refers to.
        at: where its members or values begin.
        data: the bytes that `at` counts in.
    """

    name: int
    kind: int
    vlen: int
    flag: bool
    ref: int
    at: int
    data: bytes


class Types:
    """The types of a kernel or, with a base, those that a module adds to its kernel's.

    Args:
        data: the bytes.
        names: of the types that are asked for by name; None: any.
        base: the kernel's types, whose numbers and names a module's go on from.

    Attributes:
        first: number of its first type.
        end: the number after its last.

    Raises:
        BtfError: it is no BTF, or damaged.
    """

    def __init__(
        self, data: bytes, names: Optional[Iterable[str]] = None, base: Optional[Types] = None
    ) -> None:
        self._data = data
        self._base = base
        self.end: int
        self.first = base.end if base else 1
        self._text_first: int = base._text_first + base._text_size if base else 0
        types, types_end = self._sections()
        wanted = None if names is None else {at for name in names for at in self._places(name)}
        # The first is void's, or the base's last.
        self._starts = array("I", [0])
        self._named: dict[int, list[int]] = {}
        self._scan(types, types_end, wanted)
        self.end = self.first + len(self._starts) - 1

    def named(self, name: str) -> list[int]:
        """Return the numbers of the types of a name; those of a base are not looked at."""
        return [number for at in self._places(name) for number in self._named.get(at, ())]

    def of_kinds(self, kinds: tuple[int, ...]) -> Iterator[int]:
        """Yield the numbers of the types of some kinds; those of a base are not looked at."""
        unpack, data = TYPE.unpack_from, self._data
        for number, at in enumerate(self._starts[1:], self.first):
            if unpack(data, at)[1] >> 24 & 0x7F in kinds:
                yield number

    def home(self, number: int) -> Types:
        """Return these types or the base, whichever has a number."""
        return self if self._base is None or number >= self.first else self._base

    def type(self, number: int) -> Type:
        """Return a type.

        Raises:
            BtfError: there is none of this number.
        """
        if self._base is not None and number < self.first:
            return self._base.type(number)
        if not self.first <= number < self.end:
            raise BtfError(f"BTF: no type {number}; there are {self.end - 1}")
        at = self._starts[number - self.first + 1]
        name, info, ref = TYPE.unpack_from(self._data, at)
        begin = at + TYPE.size
        return Type(
            name, info >> 24 & 0x7F, info & 0xFFFFFF, bool(info >> 31), ref, begin, self._data
        )

    def plain(self, number: int) -> Type:
        """Return the type that a chain of typedefs and qualifiers leads to.

        Raises:
            BtfError: the chain has no end.
        """
        for _ in range(CHAIN_MAX):
            found = self.type(number)
            if found.kind not in ALIASES:
                return found
            number = found.ref
        raise BtfError(f"BTF: type {number} is in a chain of more than {CHAIN_MAX} types")

    def elements(self, kind: Type, each: struct.Struct) -> Iterator[tuple[int, ...]]:
        """Yield the numbers of each member, value or parameter of a type."""
        for at in range(kind.at, kind.at + each.size * kind.vlen, each.size):
            yield each.unpack_from(kind.data, at)

    def name(self, offset: int) -> str:
        """Return the name at an offset.

        Raises:
            BtfError: there is none.
        """
        data, at = self._text_at(offset)
        return data[at : data.index(b"\0", at)].decode(errors="backslashreplace")

    def is_name(self, offset: int, needle: bytes) -> bool:
        """Tell whether the name at an offset begins with some bytes, such as b"page\\0".

        Raises:
            BtfError: there is no name.
        """
        data, at = self._text_at(offset)
        return data.startswith(needle, at)

    def _text_at(self, offset: int) -> tuple[bytes, int]:
        if self._base is not None and offset < self._text_first:
            return self._base._text_at(offset)
        if offset - self._text_first >= self._text_size:
            raise BtfError(f"BTF: a name at {offset}; there are {self._text_size} bytes")
        return self._data, self._text + offset - self._text_first

    # The sections and the pass over the types.

    def _sections(self) -> tuple[int, int]:
        """Check the header. Returns where the types begin and end."""
        data = self._data
        if len(data) < HEADER.size:
            raise BtfError(f"no BTF: {len(data)} bytes")
        magic, version, _, length, *places = HEADER.unpack_from(data)
        if magic != MAGIC or version != VERSION:
            raise BtfError(f"no BTF of version {VERSION}: it begins with {data[:3].hex()}")
        if length < HEADER.size or length > len(data):
            raise BtfError(f"BTF: a header of {length} bytes")
        (types, types_end), (text, text_end) = (
            self._section(length, *places[i : i + 2]) for i in (0, 2)
        )
        # A module's names go on from its kernel's, so there may be none.
        begins = self._base is not None or (text < text_end and data[text] == 0)
        if not begins or (text < text_end and data[text_end - 1]):
            raise BtfError("BTF: the names are not NUL-terminated")
        self._text, self._text_size = text, text_end - text
        self._behind = dict(BEHIND)
        if length >= HEADER.size + 8:
            self._learn(*self._section(length, *TWO.unpack_from(data, HEADER.size)))
        return types, types_end

    def _section(self, header: int, offset: int, length: int) -> tuple[int, int]:
        start = header + offset
        if start + length > len(self._data):
            raise BtfError(
                f"BTF: a section of {length} bytes at {start}; there are {len(self._data)} bytes"
            )
        return start, start + length

    def _learn(self, start: int, end: int) -> None:
        """Read the sizes of the kinds that newer kernels describe and that are not known here."""
        for kind, at in enumerate(range(start, end - 3, 4)):
            self._behind.setdefault(kind, (self._data[at], self._data[at + 1]))

    def _places(self, name: str) -> list[int]:
        """Return each offset into the names at which a name stands."""
        needle, found = name.encode() + b"\0", []
        if self._base is not None:
            found = self._base._places(name)
        end = self._text + self._text_size
        at = self._data.find(needle, self._text, end)
        while at >= 0:
            found.append(at - self._text + self._text_first)
            if len(found) > PLACES_MAX:
                raise BtfError(f"BTF: {name} is more than {PLACES_MAX} times among the names")
            at = self._data.find(needle, at + 1, end)
        return found

    def _scan(self, at: int, end: int, wanted: Optional[set[int]]) -> None:
        data, unpack, starts, behind = self._data, TYPE.unpack_from, self._starts, self._behind
        while end - at >= TYPE.size:
            name, info, _ = unpack(data, at)
            # Older kernels have fewer bits for either, and zeros in the others.
            kind = info >> 24 & 0x7F
            if name and (wanted is None or name in wanted):
                number = self.first + len(starts) - 1
                self._named.setdefault(name, []).append(number)
            if kind not in behind:
                raise BtfError(f"BTF: type {len(starts)} is of an unknown kind, {kind}")
            once, each = behind[kind]
            starts.append(at)
            at += TYPE.size + once + each * (info & 0xFFFFFF)
            if len(starts) > TYPES_MAX:
                raise BtfError(f"BTF: more than {TYPES_MAX} types")
        if at != end:
            raise BtfError(f"BTF: type {len(starts) - 1} does not end with the types")
