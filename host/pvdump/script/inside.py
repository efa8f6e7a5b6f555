"""What the Python of pvboot has: builtins, modules, and the names that a script finds.

Used by check.py. The rule: the image is right; host-tests/pvdump/script/test_inside.py asks it, and
holds these tables against what it answers.
"""

from __future__ import annotations

from pathlib import Path

import pvfw
import xenpv

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

MODULES = frozenset(
    """
    __main__ argparse array binascii builtins cmd collections contextlib errno functools gc hashlib
    heapq hw io itertools json logging logging.handlers micropython os os.path pvfw random struct
    sys terminal time ucontextlib uctypes unittest xenpv
    """.split()
)
# Packages of which the image has parts; pvdump is installed with all of them.
OURS = {"xenpv": Path(xenpv.__file__).parent, "pvfw": Path(pvfw.__file__).parent}


def has_module(path: str) -> bool:
    """Return whether a module or a package, such as "xenpv.block", can be imported.

    Of pvfw the image has less than is known here: what a dump needs is only in the other one.
    """
    top, *words = path.split(".")
    if not words or top not in OURS:
        return path in MODULES
    place = OURS[top].joinpath(*words)
    return place.with_name(f"{place.name}.py").is_file() or (place / "__init__.py").is_file()
