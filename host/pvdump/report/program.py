"""A vmcore opened in drgn, with what the dump itself holds in place of debug symbols.

Used by the report and by `pvdump drgn`. The rules: debug symbols that drgn finds on this machine
come first, and none are fetched; each thing that the dump lacks is one line in `lacks`, and costs
only what is made of it.
Source: drgn's API reference; Linux kernel/bpf/btf.c, include/linux/module.h.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Optional

import drgn
from drgn.helpers.linux.kallsyms import load_vmlinux_kallsyms, module_kallsyms
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.module import for_each_module, module_address_regions

from pvfw.errors import CoreError, DumpError
from pvfw.vmcoreinfo import Vmcoreinfo
from xenpv.text import printable

from ..arm.btf import SIZE_MAX, Btf
from ..dump import notes
from . import kallsyms, orc
from .orc import Entry, Table
from .typefinder import TypeFinder
from .variables import VariableFinder

NAME = "pvdump"  # of the finders
MODULES_MAX = 4096  # of a list that damage may have made endless
ORCS_MAX = 16 << 20  # entries; Debian's kernels have 0.4 million


class Core:
    """A vmcore in drgn.

    Args:
        path: of the vmcore.
        symbols: files with debug symbols to be used beside those of the standard places.

    Attributes:
        program: drgn's.
        has_debug_info: whether the kernel's debug symbols were found.
        lacks: lines on what could not be had of the dump.

    Raises:
        DumpError: a file of symbols cannot be used.
        CoreError: drgn cannot open it, or there are neither debug symbols nor the dump's own.
    """

    def __init__(self, path: Path, symbols: Sequence[Path] = ()) -> None:
        # What drgn says of symbols that it misses is said by has_debug_info.
        logging.getLogger("drgn").addHandler(logging.NullHandler())
        self.lacks: list[str] = []
        self._tables: list[Table] = []
        self._modules: list[tuple[int, int, str]] = []
        with _any_error("drgn cannot open it"):
            self.program = _opened(path)
        self.has_debug_info = self._load_debug_info(symbols)
        types = self._add_kernel()
        if types is not None:
            self._add_modules(types)

    def read(self, address: int, size: int) -> bytes:
        """Read memory at a virtual address.

        Raises:
            CoreError: the dump does not have it.
        """
        return _read(self.program, address, size)

    @property
    def has_orc(self) -> bool:
        """Whether the dump has tables to unwind by."""
        return bool(self._tables)

    def find_orc(self, ip: int) -> Optional[Entry]:
        """Return the ORC entry of an address of code, None where there is none."""
        for table in self._tables:
            entry = table.find(ip)
            if entry is not None:
                return entry
        return None

    def module_of(self, address: int) -> str:
        """Return the name of the module that an address lies in, "" where it lies in none."""
        return next((name for first, end, name in self._modules if first <= address < end), "")

    def _load_debug_info(self, symbols: Sequence[Path]) -> bool:
        # A debuginfod server would be asked for hundreds of MiB.
        self.program.set_enabled_debug_info_finders(["standard"])
        try:
            self.program.load_debug_info(symbols, main=True)
        except drgn.MissingDebugInfoError:
            pass  # the report is made without
        except (OSError, ValueError) as error:
            raise DumpError(f"debug symbols cannot be loaded: {error}") from error
        try:
            return self.program.main_module().debug_file_status == drgn.ModuleFileStatus.HAVE
        except LookupError:
            return False

    def _add_kernel(self) -> Optional[Btf]:
        """Add what the kernel has of symbols, types, variables and ORC. Returns its types."""
        program = self.program
        try:
            with _any_error("no symbols and types in the dump"):
                symbols = load_vmlinux_kallsyms(program)
                # First, so that functions have the names that the kernel itself prints.
                program.register_symbol_finder(NAME, symbols, enable_index=0)
                types = Btf(self._section("__start_BTF", "__stop_BTF", SIZE_MAX))
        except CoreError as error:
            lack = (
                f"{error}; Linux 5.10 and newer have them, with CONFIG_KALLSYMS and "
                f"CONFIG_DEBUG_INFO_BTF"
            )
            if not self.has_debug_info:
                raise CoreError(lack) from error
            self.lacks.append(lack)
            return None
        self._finder = TypeFinder(program, [types])
        program.register_type_finder(NAME, self._finder, enable_index=-1)
        program.register_object_finder(NAME, VariableFinder(self._finder), enable_index=-1)
        try:
            with _any_error("no stacks by the kernel's ORC tables"):
                self._add_orc(types)
        except CoreError as error:
            self.lacks.append(str(error))
        return types

    def _section(self, first: str, end: str, most: int) -> bytes:
        """Read what lies between two symbols."""
        begin = self.program.symbol(first).address
        size = self.program.symbol(end).address - begin
        if not 0 < size <= most:
            raise CoreError(f"{first} has {size} bytes")
        return self.read(begin, size)

    def _add_orc(self, types: Btf) -> None:
        address = self.program.symbol("__start_orc_unwind_ip").address
        ips = self._section("__start_orc_unwind_ip", "__stop_orc_unwind_ip", 4 * ORCS_MAX)
        entries = self._section("__start_orc_unwind", "__stop_orc_unwind", orc.SIZE * ORCS_MAX)
        self._layout = orc.Layout.of(types, entries)
        code = self.program.symbol("_stext").address, self.program.symbol("_einittext").address
        self._tables.append(Table(address, ips, entries, self._layout, [code]))

    def _add_modules(self, types: Btf) -> None:
        """Add the modules' symbols, types and ORC."""
        try:
            with _any_error("not all of the modules' symbols and stacks"):
                symbols = []
                for module in modules(self.program):
                    self._add_module(module)
                    symbols += module_kallsyms(module)
                finder = drgn.SymbolIndex(symbols)
                self.program.register_symbol_finder(f"{NAME} modules", finder, enable_index=1)
        except CoreError as error:
            self.lacks.append(str(error))
        try:
            with _any_error("no types of the modules' own, which Linux 5.11 and newer have"):
                self._finder.add(list(self._module_types(types)))
        except CoreError as error:
            self.lacks.append(str(error))

    def _add_module(self, module: drgn.Object) -> None:
        name = module.name.string_().decode(errors="backslashreplace")
        regions = [(base, base + size) for base, size in module_address_regions(module) if size]
        self._modules += [(first, end, name) for first, end in regions]
        arch = module.arch
        count = arch.num_orcs.value_()
        if not self.has_orc or not 0 < count <= ORCS_MAX:
            return
        address = arch.orc_unwind_ip.value_()
        ips = self.read(address, 4 * count)
        entries = self.read(arch.orc_unwind.value_(), orc.SIZE * count)
        self._tables.append(Table(address, ips, entries, self._layout, regions))

    def _module_types(self, types: Btf) -> Iterator[Btf]:
        listed = self.program["btf_modules"].address_of_()
        entries = list_for_each_entry("struct btf_module", listed, "list")
        for each in islice(entries, MODULES_MAX):
            size = each.btf.data_size.value_()
            if not 0 < size <= SIZE_MAX:
                raise CoreError(f"a module's BTF has {size} bytes")
            yield Btf(self.read(each.btf.data.value_(), size), base=types)


def _opened(path: Path) -> drgn.Program:
    """Open a vmcore in drgn. Before Linux 6.0, VMCOREINFO is told where the symbols are."""
    program = drgn.Program()
    program.set_core_dump(path)
    try:
        lines = program["VMCOREINFO"].string_()
    except LookupError:
        return program
    info = Vmcoreinfo(lambda key: printable(notes.value(lines, key)))
    if info.symbol("kallsyms_names") is not None:
        return program
    try:
        tables = kallsyms.find(partial(_read, program), info)
    except CoreError:
        return program  # what that costs is told where symbols are needed
    lines += b"".join(b"SYMBOL(%s)=%x\n" % (name.encode(), at) for name, at in tables.items())
    program = drgn.Program(vmcoreinfo=lines)
    program.set_core_dump(path)
    return program


def _read(program: drgn.Program, address: int, size: int) -> bytes:
    try:
        return program.read(address, size)
    except (drgn.FaultError, OverflowError) as error:
        raise CoreError(f"the memory at {address:#x} is not in the dump") from error


def modules(program: drgn.Program) -> Iterator[drgn.Object]:
    """Yield struct module * of each module, at most MODULES_MAX."""
    return islice(for_each_module(program), MODULES_MAX)


@contextmanager
def _any_error(what: str) -> Iterator[None]:
    """Have whatever damaged memory makes drgn or its helpers raise be a CoreError."""
    try:
        yield
    except Exception as error:
        raise CoreError(f"{what}: {error}") from error
