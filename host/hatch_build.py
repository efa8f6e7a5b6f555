"""The step of pvxen's wheel that compiles boot/hw: the module _pvdump_hw, for this Python.

Called by hatchling. The rule: the compiler's work goes into the cache that the tree's tools use, so
that nothing is left in the checkout.
Source: hatchling's documentation, "Custom build hook".
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CompileHw(BuildHookInterface[Any]):
    """Put the compiled module beside hw.py in the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile the module and name the file to hatchling."""
        tree = Path(self.root).parent
        sys.path.insert(0, str(tree))
        try:
            from tools import hwlib
        finally:
            sys.path.remove(str(tree))
        (module,) = hwlib.build().glob(f"{hwlib.NAME}*.so")
        build_data["force_include"][str(module)] = module.name
        build_data["pure_python"] = False
        build_data["infer_tag"] = True
