"""pvdumpd, the daemon of a dom0: soft resets of guests that panicked, and what follows their dumps.

The daemon (daemon.py) watches and decides; a small process of root's (helper.py, verbs.py) has the
hypercalls and the toolstack, behind a closed list of verbs.
"""
