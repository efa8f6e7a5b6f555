"""Real file systems on loop devices, which pass for a partition of a PV disk."""

from fixtures.loopdisks import disk, made, stack

__all__ = ["disk", "made", "stack"]
