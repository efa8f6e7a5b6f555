"""Questions on the kernel's types by the names of structures, members and constants.

Used by layout.py and by the report. A type of which there are several that differ has no answer.
Source: Linux Documentation/bpf/btf.rst, include/uapi/linux/btf.h.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Callable, NamedTuple, Optional, TypeVar

from .btftypes import (
    ARRAY,
    CHAIN_MAX,
    ENUM,
    ENUM64,
    FLOAT,
    INT,
    ONE,
    POINTER,
    PTR,
    STRUCT,
    THREE,
    TWO,
    UNION,
    BtfError,
    Types,
)

SYSTEM = Path("/sys/kernel/btf/vmlinux")
SIZE_MAX = 64 << 20  # bytes; today's kernels have 4 to 10 MiB
STEPS_MAX = 1 << 20  # types and members that are looked at; today some thousands
SIZED = (INT, STRUCT, UNION, ENUM, FLOAT, ENUM64)

Answer = TypeVar("Answer")


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


class Btf(Types):
    """The types of a kernel or module, with answers on them.

    Args and Raises: as of Types. Names are without the keyword struct, union or enum. The work is
    counted, so that types which lead to each other end soon.
    """

    _steps = 0

    def size(self, name: str) -> Optional[int]:
        """Return the bytes of a structure or union.

        Returns:
            None where there is no such type, or there are several that differ.

        Raises:
            BtfError: the types are damaged.
        """
        return self._agreed(name, (STRUCT, UNION), lambda number: self.type(number).ref)

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

    # One type.

    def _step(self) -> None:
        """Count a type or member that is looked at for a question."""
        self._steps += 1
        if self._steps > STEPS_MAX:
            raise BtfError(f"BTF: more than {STEPS_MAX} types and members would be looked at")

    def _agreed(
        self, name: str, kinds: tuple[int, ...], answer: Callable[[int], Optional[Answer]]
    ) -> Optional[Answer]:
        """Return what all types of a name and one of some kinds answer, None where they differ."""
        answers = set()
        for number in self.named(name):
            self._step()
            if self.type(number).kind in kinds:
                answers.add(answer(number))
        return answers.pop() if len(answers) == 1 else None

    def _field(self, number: int, path: str) -> Optional[Field]:
        bits = width = 0
        for part in path.split("."):
            found = self._member(number, part.encode() + b"\0")
            if found is None:
                return None
            offset, width, number = found
            bits += offset
        kind = self.plain(number)
        length = THREE.unpack_from(kind.data, kind.at)[2] if kind.kind == ARRAY else None
        return Field(bits, self._bytes(number), width, length)

    def _member(self, number: int, needle: bytes) -> Optional[tuple[int, int, int]]:
        """Find a member. Returns its offset and width in bits, and its type."""
        todo, seen = [(number, 0)], set()
        while todo:
            number, base = todo.pop()
            self._step()
            kind = self.plain(number)
            # Each structure is looked at once, whatever damaged references make of it.
            if kind.kind not in (STRUCT, UNION) or kind[:6] in seen:
                continue
            seen.add(kind[:6])
            for name, member, offset in self.elements(kind, THREE):
                self._step()
                width = 0
                if kind.flag:
                    width, offset = offset >> 24, offset & 0xFFFFFF
                if self.is_name(name, b"\0"):
                    todo.append((member, base + offset))
                elif self.is_name(name, needle):
                    return base + offset, width or self._narrow(member), member
        return None

    def _narrow(self, number: int) -> int:
        """Return the bits of an integer type that is a bit-field's in the older form, else 0."""
        kind = self.plain(number)
        if kind.kind != INT:
            return 0
        bits: int = ONE.unpack_from(kind.data, kind.at)[0] & 0xFF
        return bits if bits != 8 * kind.ref else 0

    def _bytes(self, number: int) -> int:
        """Return the bytes of a type."""
        times = 1
        for _ in range(CHAIN_MAX):
            kind = self.plain(number)
            if kind.kind in SIZED:
                return times * kind.ref
            if kind.kind == PTR:
                return times * POINTER
            if kind.kind != ARRAY:
                break
            number, _, length = THREE.unpack_from(kind.data, kind.at)
            times *= length
        raise BtfError(f"BTF: type {number} has no size")

    def _value(self, number: int, constant: str) -> Optional[int]:
        needle, kind = constant.encode() + b"\0", self.type(number)
        wide = kind.kind == ENUM64
        each = THREE if wide else TWO
        for name, low, *high in self.elements(kind, each):
            self._step()
            if self.is_name(name, needle):
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
