"""Block backend: disks for guests, each with a worker that no other guest can delay.

negotiate.py has what both ends write in xenstore, as tables; device.py follows the front end's
states; instance.py is the worker that serves a ring: parse (request.py), map (frames.py), I/O
(sink.py, nbd.py), reply. ports.py is the interface to Xen: dom0.py implements it on a real one,
pvxen/blkback.py on the embedded one. host.py serves all disks of a domain 0; command.py is
`pvdump blkback`.
"""
