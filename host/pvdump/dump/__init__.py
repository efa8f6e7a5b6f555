"""Dump targets as the host sees them: prepare one, describe it, collect its dump."""
