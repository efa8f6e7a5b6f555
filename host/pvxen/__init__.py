"""A small Xen inside this process, for running the drivers and the firmware under CPython.

guest.Guest is the way in for one domain, toolstack.Toolstack for several: machines with a store and
disks, as xl would have made them, in the state that the crashed kernel left; scenario.Scenario says
what goes wrong. One thread, virtual time, one seed: a run can be repeated.
"""
