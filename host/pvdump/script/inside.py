"""What the Python of pvboot has: builtins, modules, and the names that a script finds.

Used by check.py. The rule: the image is right; host-tests/pvdump/script/test_inside.py asks it, and
holds these tables against what it answers.
"""

# Builtins of MicroPython as pvboot.yaml's image has it.
BUILTINS = frozenset(
    """
    ArithmeticError AssertionError AttributeError BaseException EOFError Ellipsis Exception
    GeneratorExit ImportError IndentationError IndexError KeyError KeyboardInterrupt LookupError
    MemoryError NameError NotImplemented NotImplementedError OSError OverflowError RuntimeError
    StopAsyncIteration StopIteration SyntaxError SystemExit TypeError UnicodeError ValueError
    ZeroDivisionError __build_class__ __import__ abs all any bin bool bytearray bytes callable
    chr classmethod compile delattr dict dir divmod enumerate eval exec filter frozenset getattr
    globals hasattr hash help hex id input int isinstance issubclass iter len list locals map
    max memoryview min next object oct open ord pow print property range repr reversed round set
    setattr slice sorted staticmethod str sum super tuple type zip
    """.split()
)
# Those that a script finds besides; docs/scripting.md tells what they are.
NAMES = frozenset(
    "Disk disk evtchn exit grants guest help hw loop reboot run store xen xenpv".split()
)
ALWAYS = frozenset(["__name__"])

# Modules by their package; "" has those of none.
MODULES = {
    "": """
    __main__ argparse array binascii builtins cmd collections contextlib errno functools gc
    hashlib heapq hw io itertools json logging micropython pvfw random struct sys terminal
    time ucontextlib uctypes unittest xenpv
    """,
    "logging": """
    handlers
    """,
    "os": """
    path
    """,
    "pvfw": """
    boot bootmain ending errors kernel modules report shell
    """,
    "pvfw.boot": """
    area bls bzimage entries errors ext extblocks extfolder extlinux fat fatfolder files gpt
    grub grubcommands grubenv grubmachine grubscript grubtest grubwords load nodes
    partitions runs sources uki versions volumes
    """,
    "pvfw.kernel": """
    acpi leave menu mode params room start
    """,
    "pvfw.shell": """
    disk guest loop mode prompt sections
    """,
    "xenpv": """
    abi block bytering control errors evtchn gnttab guest hypercall loop pollloop suspend
    text xenbus xenstore
    """,
    "xenpv.block": """
    blkif connection disks front negotiate queue requests ring supervise suspend takeover
    vdev
    """,
    "xenpv.xenstore": """
    boundary client domains halfrequest nodes ring session suspend watch wire
    """,
}
PATHS = frozenset(
    f"{package}.{name}" if package else name
    for package, names in MODULES.items()
    for name in names.split()
)


def has_module(path: str) -> bool:
    """Return whether a module or a package, such as "xenpv.block", can be imported."""
    return path in PATHS or any(each.startswith(f"{path}.") for each in PATHS)
