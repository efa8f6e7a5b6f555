"""A small Xen inside this process, for running the drivers and the firmware under CPython.

guest.EmbeddedGuest makes one domain, toolstack.Toolstack several: machines with a store and disks,
as xl makes them, in the state that a crashed kernel leaves; scenario.Scenario says what goes wrong.
image.EmbeddedImage runs the image itself in such a domain. One thread, virtual time, one seed: a
run can be repeated.
"""
