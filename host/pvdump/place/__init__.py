"""Dump targets in files, partitions, logical volumes and swap of this guest, by their extents.

filesystem.py and fiemap.py say where a file is on its file system's device, device.py where that is
on a PV disk, swap.py what swap allows; locate.py puts them together. create.py makes targets of
them, freeze.py freezes file systems, stamp.py writes the nonce of arm time past the file system.
command.py is `pvdump prepare`.
"""
