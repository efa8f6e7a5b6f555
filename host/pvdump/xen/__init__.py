"""A small Xen inside this process, for running the drivers and the firmware under CPython.

guest.Guest is the way in: a machine with a store and disks, as `xl create` would have made it, in
the state an earlier kernel may have left. One thread, virtual time, one seed: a run can be
repeated.
"""
