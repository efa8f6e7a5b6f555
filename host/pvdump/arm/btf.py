"""A reader of BTF, the description of the running kernel's types in /sys/kernel/btf/vmlinux.

Used by layout.py. The rules: one pass over the types notes where each begins and which have a name
that is asked for; nothing else is looked at before it is needed. Every offset, count and reference
is checked, and the work is counted, so whatever the bytes are, the answer is a value, None, or
BtfError. Only little-endian
BTF of 64-bit kernels is read.
Source: Linux Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import Callable, NamedTuple, Optional, TypeVar

from pvfw.errors import DumpError

SYSTEM = Path("/sys/kernel/btf/vmlinux")
SIZE_MAX = 64 << 20  # bytes; today's kernels have 4 to 10 MiB
TYPES_MAX = 0xFFFFF  # the kernel's own bound, BTF_MAX_TYPE
CHAIN_MAX = 32  # names, qualifiers and dimensions of one type
PLACES_MAX = 1 << 16  # of a name, which ends longer ones as well: "page" some hundred today
STEPS_MAX = 1 << 20  # types and members that are looked at; today some thousands
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
SIZED = (INT, STRUCT, UNION, ENUM, FLOAT, ENUM64)
NAMED = (STRUCT, UNION, ENUM, ENUM64)

Answer = TypeVar("Answer")


class BtfError(DumpError):
    """The bytes are no BTF, or damaged."""


class Field(NamedTuple):
    """A member of a structure.

    Attributes:
        bits: its offset in the structure, in bits.
        size: bytes of its type; for an array, of the whole array.
        width: bits of a bit-field, 0 for any other member.
        length: elements of an array, None for any other member.
    """

    bits: int
    size: int
    width: int
    length: Optional[int]


class _Type(NamedTuple):
    kind: int
    vlen: int  # number of its members or values
    flag: bool
    ref: int  # its size, or the type that it refers to
    at: int  # where its members or values begin


class Btf:
    """The types of a kernel that have one of the names asked for.

    Args:
        data: the bytes of the file.
        names: of structures, unions and enums, without the keyword.

    Raises:
        BtfError: it is no BTF, or damaged.
    """

    def __init__(self, data: bytes, names: Iterable[str]) -> None:
        self._data = data
        self._steps = 0
        types, types_end = self._sections()
        wanted = {at: name for name in names for at in self._places(name)}
        self._starts = array("I", [0])
        self._named: dict[str, list[int]] = {}
        self._scan(types, types_end, wanted)

    def size(self, name: str) -> Optional[int]:
        """Return the bytes of a structure or union.

        Returns:
            None where there is no such type, or there are several that differ.

        Raises:
            BtfError: the types are damaged.
        """
        return self._agreed(name, (STRUCT, UNION), lambda number: self._type(number).ref)

    def field(self, name: str, path: str) -> Optional[Field]:
        """Return a member of a structure or union.

        Args:
            name: of the structure.
            path: the member's name, those of nested members separated by dots; members of anonymous
                structures and unions count as the structure's own.

        Returns:
            None where there is no such member, or several structures of that name differ in it.

        Raises:
            BtfError: the types are damaged.
        """
        return self._agreed(name, (STRUCT, UNION), lambda number: self._field(number, path))

    def value(self, name: str, constant: str) -> Optional[int]:
        """Return the value of a constant of an enum.

        Returns:
            None where there is no such constant, or several enums of that name differ in it.

        Raises:
            BtfError: the types are damaged.
        """
        return self._agreed(name, (ENUM, ENUM64), lambda number: self._value(number, constant))

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
        if text == text_end or data[text] or data[text_end - 1]:
            raise BtfError("BTF: the names are not NUL-terminated")
        self._text, self._text_end = text, text_end
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
        at = self._data.find(needle, self._text, self._text_end)
        while at >= 0:
            found.append(at - self._text)
            if len(found) > PLACES_MAX:
                raise BtfError(f"BTF: {name} is more than {PLACES_MAX} times among the names")
            at = self._data.find(needle, at + 1, self._text_end)
        return found

    def _scan(self, at: int, end: int, wanted: dict[int, str]) -> None:
        data, unpack, starts, behind = self._data, TYPE.unpack_from, self._starts, self._behind
        while end - at >= TYPE.size:
            name, info, _ = unpack(data, at)
            # Older kernels have fewer bits for either, and zeros in the others.
            kind = info >> 24 & 0x7F
            if name in wanted and kind in NAMED:
                self._named.setdefault(wanted[name], []).append(len(starts))
            if kind not in behind:
                raise BtfError(f"BTF: type {len(starts)} is of an unknown kind, {kind}")
            once, each = behind[kind]
            starts.append(at)
            at += TYPE.size + once + each * (info & 0xFFFFFF)
            if len(starts) > TYPES_MAX:
                raise BtfError(f"BTF: more than {TYPES_MAX} types")
        if at != end:
            raise BtfError(f"BTF: type {len(starts) - 1} does not end with the types")

    # One type.

    def _agreed(
        self, name: str, kinds: tuple[int, ...], answer: Callable[[int], Optional[Answer]]
    ) -> Optional[Answer]:
        """Return what all types of a name and one of some kinds answer, None where they differ."""
        numbers = (n for n in self._named.get(name, ()) if self._type(n).kind in kinds)
        answers = {answer(number) for number in numbers}
        return answers.pop() if len(answers) == 1 else None

    def _step(self) -> None:
        """Count a type or member that is looked at."""
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise BtfError(f"BTF: more than {STEPS_MAX} types and members would be looked at")

    def _type(self, number: int) -> _Type:
        self._step()
        if not 0 < number < len(self._starts):
            raise BtfError(f"BTF: no type {number}; there are {len(self._starts) - 1}")
        at = self._starts[number]
        _, info, ref = TYPE.unpack_from(self._data, at)
        return _Type(info >> 24 & 0x7F, info & 0xFFFFFF, bool(info >> 31), ref, at + TYPE.size)

    def _plain(self, number: int) -> _Type:
        """Return the type that a chain of typedefs and qualifiers leads to."""
        for _ in range(CHAIN_MAX):
            found = self._type(number)
            if found.kind not in ALIASES:
                return found
            number = found.ref
        raise BtfError(f"BTF: type {number} is in a chain of more than {CHAIN_MAX} types")

    def _is(self, name: int, needle: bytes) -> bool:
        self._step()
        if name >= self._text_end - self._text:
            raise BtfError(f"BTF: a name at {name}; there are {self._text_end - self._text} bytes")
        return self._data.startswith(needle, self._text + name)

    def _field(self, number: int, path: str) -> Optional[Field]:
        bits = width = 0
        for part in path.split("."):
            found = self._member(number, part.encode() + b"\0")
            if found is None:
                return None
            offset, width, number = found
            bits += offset
        kind = self._plain(number)
        length = THREE.unpack_from(self._data, kind.at)[2] if kind.kind == ARRAY else None
        return Field(bits, self._bytes(number), width, length)

    def _member(self, number: int, needle: bytes) -> Optional[tuple[int, int, int]]:
        """Find a member. Returns its offset and width in bits, and its type."""
        todo, seen = [(number, 0)], set()
        while todo:
            number, base = todo.pop()
            kind = self._plain(number)
            # Each structure is looked at once, whatever damaged references make of it.
            if kind.kind not in (STRUCT, UNION) or kind.at in seen:
                continue
            seen.add(kind.at)
            for at in range(kind.at, kind.at + 12 * kind.vlen, 12):
                name, member, offset = THREE.unpack_from(self._data, at)
                width = 0
                if kind.flag:
                    width, offset = offset >> 24, offset & 0xFFFFFF
                if self._is(name, b"\0"):
                    todo.append((member, base + offset))
                elif self._is(name, needle):
                    return base + offset, width or self._narrow(member), member
        return None

    def _narrow(self, number: int) -> int:
        """Return the bits of an integer type that is a bit-field's in the older form, else 0."""
        kind = self._plain(number)
        if kind.kind != INT:
            return 0
        bits: int = ONE.unpack_from(self._data, kind.at)[0] & 0xFF
        return bits if bits != 8 * kind.ref else 0

    def _bytes(self, number: int) -> int:
        """Return the bytes of a type."""
        times = 1
        for _ in range(CHAIN_MAX):
            kind = self._plain(number)
            if kind.kind in SIZED:
                return times * kind.ref
            if kind.kind == PTR:
                return times * POINTER
            if kind.kind != ARRAY:
                break
            number, _, length = THREE.unpack_from(self._data, kind.at)
            times *= length
        raise BtfError(f"BTF: type {number} has no size")

    def _value(self, number: int, constant: str) -> Optional[int]:
        needle, kind = constant.encode() + b"\0", self._type(number)
        wide = kind.kind == ENUM64
        each = THREE if wide else TWO
        for at in range(kind.at, kind.at + each.size * kind.vlen, each.size):
            name, low, *high = each.unpack_from(self._data, at)
            if self._is(name, needle):
                value: int = low | high[0] << 32 if wide else low
                sign = 1 << (63 if wide else 31)
                # Enums from before 6.0 have no flag; none with a negative constant is asked for.
                return value - 2 * sign if kind.flag and value & sign else value
        return None


def read(path: Path, names: Iterable[str]) -> Btf:
    """Read the types of the running kernel.

    Args:
        path: SYSTEM, or a copy of it.
        names: as for Btf.

    Raises:
        FileNotFoundError: there is none; the kernel was built without.
        BtfError: it cannot be read, is no BTF, or damaged.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(SIZE_MAX + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise BtfError(f"{path}: {error.strerror}") from error
    if len(data) > SIZE_MAX:
        raise BtfError(f"{path} has more than {SIZE_MAX >> 20} MiB")
    try:
        return Btf(data, names)
    except BtfError as error:
        raise BtfError(f"{path}: {error}") from error
