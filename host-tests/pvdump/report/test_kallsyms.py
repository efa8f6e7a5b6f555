"""Symbols of a kernel before 6.0: they are found in its memory, wherever KASLR moved it.

The kernel is Debian's 5.10, as its package has it.
"""

import random
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from fixtures.stillkernel import LARGE, PAGE, StillKernel

from lab.kernel import Kernel
from pvdump.report import kallsyms, orc
from pvdump.report.facts import LEAST
from pvdump.report.gather import gather
from pvdump.report.program import Core
from pvfw.errors import CoreError
from pvfw.vmcoreinfo import Vmcoreinfo

SHIFTS = [(0, 0), (300 * LARGE, 37 * LARGE)]


def info(kernel: StillKernel, **more: int) -> Vmcoreinfo:
    symbols = {"_stext": kernel.text, "init_uts_ns": kernel.uts, **more}
    lines = {f"SYMBOL({name})": f"{address:x}" for name, address in symbols.items() if address}
    return Vmcoreinfo(lambda key: lines.get(key, ""))


def reader(kernel: StillKernel, image: bytes, *missing: int) -> Callable[[int, int], bytes]:
    """Reads an image of the kernel's; pages at the addresses `missing` are not there."""

    def read(address: int, size: int) -> bytes:
        if any(address - PAGE < page < address + size for page in missing):
            raise CoreError("not there")
        return bytes(image[address - kernel.text : address - kernel.text + size])

    return read


@pytest.mark.parametrize(("shift", "phys_base"), SHIFTS)
def test_symbols_types_and_stacks_need_no_debug_symbols(
    debian: Kernel, file: bytes, tmp_path: Path, shift: int, phys_base: int
) -> None:
    kernel = StillKernel(file, shift, phys_base)
    path = tmp_path / "vmcore"
    path.write_bytes(kernel.vmcore(debian.release))
    core = Core(path)
    program = core.program
    assert program.symbol("_stext").address == kernel.text
    assert program.symbol("init_uts_ns").address == kernel.uts
    assert debian.release in program["linux_banner"].string_().decode()
    assert program["init_uts_ns"].name.release.string_().decode() == debian.release
    assert program["init_task"].comm.string_() == b"swapper"
    # The first entry of a function: a call has pushed its return address, and nothing else.
    first = core.find_orc(program.symbol("kernel_init").address)
    assert first == orc.Entry(orc.SP, 8, orc.UNDEFINED, 0, orc.CALL)
    assert [line for line in core.lacks if "the modules' own" not in line] == []


@pytest.fixture(scope="module")
def found(still: StillKernel) -> dict[str, int]:
    """Where the tables are."""
    return kallsyms.find(reader(still, still.image), info(still))


def test_pages_that_are_missing_elsewhere_cost_nothing(
    still: StillKernel, found: dict[str, int]
) -> None:
    gone = [still.text, still.text + 5 * PAGE, found["kallsyms_offsets"] - 2 * PAGE]
    assert kallsyms.find(reader(still, still.image, *gone), info(still)) == found


@pytest.mark.parametrize("table", ["num_syms", "names", "token_table", "token_index"])
def test_a_table_that_is_missing_is_an_error(
    still: StillKernel, found: dict[str, int], table: str
) -> None:
    at = found[f"kallsyms_{table}"]
    with pytest.raises(CoreError, match="are not found"):
        kallsyms.find(reader(still, still.image, at // PAGE * PAGE), info(still))


@pytest.mark.parametrize(
    ("table", "distance"),
    [("num_syms", 1), ("names", 0), ("token_table", -16), ("token_table", 1), ("token_index", 2)],
    ids=["num_syms", "names", "markers", "token_table", "token_index"],
)
def test_a_table_that_contradicts_another_is_an_error(
    still: StillKernel, found: dict[str, int], table: str, distance: int
) -> None:
    image = bytearray(still.image)
    at = found[f"kallsyms_{table}"] + distance - still.text
    image[at] = 0 if image[at] else 1
    with pytest.raises(CoreError, match="are not found"):
        kallsyms.find(reader(still, image), info(still))


@pytest.mark.parametrize("seed", range(6))
def test_whatever_stands_there_ends_with_addresses_or_an_error(
    still: StillKernel, found: dict[str, int], seed: int
) -> None:
    choice = random.Random(seed)
    image = bytearray(still.image)
    first, end = found["kallsyms_names"] - 64, found["kallsyms_token_index"] + 512
    for _ in range(choice.randrange(1, 5)):
        at = choice.choice([choice.randrange(first, end), end - choice.randrange(1, 4096)])
        image[at - still.text] = choice.randrange(256)
    with suppress(CoreError):
        assert kallsyms.find(reader(still, image), info(still)) == found


@pytest.mark.parametrize(
    "symbols", [{"_stext": 0}, {"init_uts_ns": 0}, {"_stext": 1}, {"init_uts_ns": 1}]
)
def test_a_kernel_that_does_not_say_where_it_is_has_no_symbols(
    still: StillKernel, symbols: dict[str, int]
) -> None:
    with pytest.raises(CoreError, match="VMCOREINFO"):
        kallsyms.find(reader(still, still.image), info(still, **symbols))


def test_a_dump_without_the_tables_has_a_report_of_log_and_registers(
    debian: Kernel, still: StillKernel, found: dict[str, int], tmp_path: Path
) -> None:
    path = tmp_path / "vmcore"
    raw = bytearray(still.vmcore(debian.release))
    at = 2 * PAGE + found["kallsyms_token_table"] - still.text
    raw[at : at + PAGE] = bytes(PAGE)
    path.write_bytes(raw)
    with pytest.raises(
        CoreError, match=r"^no symbols and types in the dump: .*Linux 5\.10"
    ) as error:
        Core(path)
    made = gather(path, [])
    assert made.source == LEAST
    assert made.kernel.release == debian.release
    assert f"no tasks, stacks and memory: {error.value}" in made.missing
