"""The command that installs a Python module for this pvdump, as a person pastes it.

Used by the commands that can do more with a module that is not there. The rule: it is for the
Python that runs, and works where a distribution keeps pip from its own Python (PEP 668).
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path

from .streams import pasted

MARKER = "EXTERNALLY-MANAGED"


def install(module: str) -> str:
    """Return the command. module: its name, such as drgn."""
    words = [pasted(sys.executable), "-m", "pip", "install", module]
    is_own = sys.prefix != sys.base_prefix  # a virtual environment
    if not is_own and Path(sysconfig.get_path("stdlib"), MARKER).exists():
        words.insert(4, "--break-system-packages")
    return " ".join(words)
