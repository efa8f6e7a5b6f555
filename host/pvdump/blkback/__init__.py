"""Block backend: disks for guests, one worker each, that no guest can hurt.

negotiate.py is what both ends write in xenstore, as tables; device.py follows the front end's
states; instance.py is the worker that serves a ring: parse (request.py), map (frames.py), I/O
(sink.py, nbd.py), reply. ports.py is all they want of Xen: embedded.py gives it on the embedded
Xen, dom0.py on a real one. host.py serves all devices of a domain 0; command.py is
`pvdump blkback`.
"""
