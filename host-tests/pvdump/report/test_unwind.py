"""The unwinder: from a frame to its caller, by each way that ORC has, and to the stack's end."""

import struct

import pytest

from pvdump.report import orc
from pvdump.report.orc import Entry
from pvdump.report.unwind import FRAMES_MAX, IRET_AT, PT_REGS, PT_REGS_SIZE, Frame, State, Unwinder
from pvfw.errors import CoreError

STACK = 0xFFFFC90000000000
KERNEL_CS, USER_CS = 0x10, 0x33
LAST = Entry(orc.UNDEFINED, 0, orc.UNDEFINED, 0, orc.END)


class Machine:
    """A stack, and the entries of functions by the address of their code.

    Every function of the tests has 0x100 bytes.
    """

    def __init__(self, **functions: Entry) -> None:
        self.words: dict[int, int] = {}
        self.entries = dict(functions)
        self.starts = {name: 0x1000 * (n + 1) for n, name in enumerate([*functions, "last"])}
        self.entries["last"] = LAST

    def at(self, name: str, offset: int = 0x10) -> int:
        return self.starts[name] + offset

    def put(self, at: int, *values: int) -> None:
        self.words.update((at + 8 * number, value) for number, value in enumerate(values))

    def put_registers(self, at: int, first: str = "r15", **values: int) -> None:
        names = PT_REGS[PT_REGS.index(first) :]
        self.put(at, *(values.get(name, 0) for name in names))

    def read(self, address: int, size: int) -> bytes:
        try:
            words = [self.words[at] for at in range(address, address + size, 8)]
        except KeyError:
            raise CoreError(f"nothing at {address:#x}") from None
        return struct.pack(f"<{len(words)}Q", *words)

    def find(self, ip: int) -> Entry | None:
        for name, start in self.starts.items():
            if start <= ip < start + 0x100:
                return self.entries[name]
        return None

    def walk(self, name: str, exact: bool = True, **more: int) -> list[Frame]:
        state = State(self.at(name), STACK, more.pop("bp", 0), exact, more)
        return list(Unwinder(self.read, self.find).walk(state))

    def named(self, frames: list[Frame]) -> list[str]:
        names = {start // 0x1000: name for name, start in self.starts.items()}
        return [names[frame.place // 0x1000] for frame in frames]


def call(sp_reg: int, sp_offset: int, bp_reg: int = orc.UNDEFINED, bp_offset: int = 0) -> Entry:
    return Entry(sp_reg, sp_offset, bp_reg, bp_offset, orc.CALL)


def test_a_caller_is_at_its_return_address_above_the_frame() -> None:
    machine = Machine(inner=call(orc.SP, 24), outer=call(orc.SP, 8))
    machine.put(STACK + 16, machine.at("outer"), machine.at("last"))
    assert machine.walk("inner") == [
        Frame(machine.at("inner"), STACK, True),
        Frame(machine.at("outer"), STACK + 24, False),
        Frame(machine.at("last"), STACK + 32, False),
    ]


def test_a_call_that_is_its_function_s_last_instruction_belongs_to_that_function() -> None:
    machine = Machine(inner=call(orc.SP, 8), outer=call(orc.SP, 8))
    machine.put(STACK, machine.at("outer", 0x100), machine.at("last"))
    assert machine.named(machine.walk("inner")) == ["inner", "outer", "last"]


def test_a_saved_rbp_is_the_caller_s() -> None:
    machine = Machine(inner=call(orc.SP, 16, orc.PREV_SP, -16), outer=call(orc.BP, 16))
    machine.put(STACK, STACK + 64, machine.at("outer"))
    machine.put(STACK + 72, machine.at("last"))
    assert machine.named(machine.walk("inner")) == ["inner", "outer", "last"]


@pytest.mark.parametrize(
    ("entry", "registers"),
    [
        (call(orc.SP_INDIRECT, 8), {}),
        (call(orc.BP_INDIRECT, -8), {"bp": STACK + 8}),
        (call(orc.R10, 0), {"r10": STACK + 72}),
        (call(orc.R13, 0), {"r13": STACK + 72}),
        (call(orc.DI, 0), {"di": STACK + 72}),
        (call(orc.DX, 0), {"dx": STACK + 72}),
    ],
)
def test_a_stack_may_have_been_switched(entry: Entry, registers: dict[str, int]) -> None:
    machine = Machine(inner=entry)
    machine.put(STACK, STACK + 64 if entry.sp_reg == orc.SP_INDIRECT else STACK + 72)
    machine.put(STACK + 64, machine.at("last"))
    assert machine.named(machine.walk("inner", **registers)) == ["inner", "last"]


def test_an_interrupted_function_goes_on_exactly_where_it_was() -> None:
    handler = Entry(orc.SP, 0, orc.UNDEFINED, 0, orc.REGS)
    machine = Machine(handler=handler, worker=call(orc.BP, 16))
    top = STACK + 0x1000
    machine.put_registers(STACK, ip=machine.at("worker", 0), sp=top, cs=KERNEL_CS, bp=top)
    machine.put(top + 8, machine.at("last"))
    frames = machine.walk("handler")
    assert frames[1] == Frame(machine.at("worker", 0), top, True)
    assert machine.named(frames) == ["handler", "worker", "last"]


def test_an_interrupt_s_own_part_of_the_registers_is_enough() -> None:
    entry = Entry(orc.SP, 0, orc.UNDEFINED, 0, orc.REGS_PARTIAL)
    machine = Machine(entry=entry, worker=call(orc.SP, 8))
    top = STACK + 0x1000
    machine.put_registers(STACK, "ip", ip=machine.at("worker"), sp=top, cs=KERNEL_CS)
    machine.put(top, machine.at("last"))
    assert machine.named(machine.walk("entry")) == ["entry", "worker", "last"]
    assert PT_REGS_SIZE - IRET_AT == 40


@pytest.mark.parametrize("kind", [orc.REGS, orc.REGS_PARTIAL])
def test_the_stack_ends_where_user_space_called(kind: int) -> None:
    machine = Machine(syscall=Entry(orc.SP, 0, orc.UNDEFINED, 0, kind))
    first = "r15" if kind == orc.REGS else "ip"
    machine.put_registers(STACK, first, ip=0x401000, sp=0x7FFF0000, cs=USER_CS)
    assert machine.named(machine.walk("syscall")) == ["syscall"]


def test_a_call_of_address_0_has_its_caller_on_top_of_the_stack() -> None:
    machine = Machine(outer=call(orc.SP, 8))
    machine.put(STACK, machine.at("outer"), machine.at("last"))
    frames = list(Unwinder(machine.read, machine.find).walk(State(0, STACK, 0, True)))
    assert [frame.ip for frame in frames] == [0, machine.at("outer"), machine.at("last")]


def test_a_stack_of_zeros_ends_without_an_address_below_zero() -> None:
    machine = Machine(inner=call(orc.SP, 8))
    machine.put(STACK, 0, 0)
    frames, why = ended(machine, "inner")
    assert [frame.place for frame in frames] == [machine.at("inner"), 0, 0]
    assert "nothing at" in why


def test_code_without_an_entry_is_taken_to_have_a_frame_pointer() -> None:
    machine = Machine(outer=call(orc.SP, 8))
    machine.put(STACK + 32, 0, machine.at("outer"), machine.at("last"))
    state = State(0xFFFF0000, STACK, STACK + 32, True)
    frames = list(Unwinder(machine.read, machine.find).walk(state))
    assert [frame.ip for frame in frames[1:]] == [machine.at("outer"), machine.at("last")]


def ended(machine: Machine, name: str) -> tuple[list[Frame], str]:
    """The frames of a walk that cannot be followed, and why."""
    frames = []
    try:
        for frame in Unwinder(machine.read, machine.find).walk(
            State(machine.at(name), STACK, 0, True)
        ):
            frames.append(frame)
    except CoreError as error:
        return frames, str(error)
    raise AssertionError("it was followed to its end")


def test_memory_that_is_missing_ends_the_walk_and_costs_no_frame_before() -> None:
    machine = Machine(inner=call(orc.SP, 8), outer=call(orc.SP, 512))
    machine.put(STACK, machine.at("outer"))
    frames, why = ended(machine, "inner")
    assert machine.named(frames) == ["inner", "outer"]
    assert "nothing at" in why


def test_code_that_the_tables_do_not_tell_of_ends_the_walk() -> None:
    machine = Machine(inner=Entry(orc.UNDEFINED, 0, orc.UNDEFINED, 0, orc.NOTHING))
    frames, why = ended(machine, "inner")
    assert machine.named(frames) == ["inner"]
    assert "do not tell of the code" in why


def test_a_register_that_is_not_known_ends_the_walk() -> None:
    _, why = ended(Machine(inner=call(orc.R10, 0)), "inner")
    assert "register 6" in why


def test_a_stack_that_leads_back_to_itself_ends() -> None:
    machine = Machine(inner=call(orc.SP_INDIRECT, 0))
    machine.put(STACK - 8, machine.at("inner"))
    machine.put(STACK, STACK)
    frames, why = ended(machine, "inner")
    assert len(frames) == 2
    assert "back to itself" in why


def test_a_stack_without_end_is_cut() -> None:
    machine = Machine(inner=call(orc.SP, 8))
    machine.put(STACK, *[machine.at("inner")] * (2 * FRAMES_MAX))
    frames, why = ended(machine, "inner")
    assert len(frames) == FRAMES_MAX
    assert f"more than {FRAMES_MAX}" in why
