"""The host side of pvdump: dumps, xenstore, watches and disks of guests, and the command line."""

__version__ = "0.1.0"
