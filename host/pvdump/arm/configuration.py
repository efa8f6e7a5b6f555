"""The configuration for the kernel that runs now, and the command line that goes with it.

Used by arm. The rule: what the image must not miss if its configuration is overwritten stands on
the command line as well.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from pvfw import config

from ..streams import complain
from . import btf, layout
from .targets import Found


def make(wanted: dict[str, Any], found: Sequence[Found]) -> config.Config:
    """Make the configuration.

    Args:
        wanted: the value of each of settings.SETTINGS.
        found: the targets.

    Raises:
        DumpError: what the kernel says of itself cannot be used.
    """
    made = config.Config()
    made.release = os.uname().release
    made.targets = [each.target for each in found]
    made.level = wanted["level"]
    made.algorithm, made.compression = wanted["compress"], wanted["compress_level"]
    made.then = wanted["then"]
    made.recipients = wanted["recipients"]
    made.log_clear = wanted["log"] is not None
    made.nonce = os.urandom(config.NONCE_SIZE)
    try:
        made.facts = layout.facts(btf.read(btf.SYSTEM, layout.NAMES))
    except FileNotFoundError:
        complain(
            "arm",
            f"this kernel has no {btf.SYSTEM}: only what VMCOREINFO is sufficient for is left out",
        )
    return made


def cmdline(made: config.Config) -> str:
    """Return the command line of the image that goes with a configuration."""
    words = []
    # A command line cannot say extents, and what it says counts before the configuration.
    if made.targets and all(target.extents is None for target in made.targets):
        words.append("pvdump.disk=" + ",".join(target.name for target in made.targets))
    if made.recipients:
        words.append("pvdump.recipients=required")
    if made.then is not None:
        words.append(f"pvdump.then={made.then}")
    return " ".join(words)
