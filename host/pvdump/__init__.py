"""The host side of pvdump: the command line, and the embedded Xen of the tests."""
