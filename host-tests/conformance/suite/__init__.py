"""The duties of every xenstore server, as cases written once against the client.

Runs under CPython and, frozen into an image, in a guest: only what both Pythons share. Each case
says what the specification wants to be seen; what a server does otherwise stands with its reason in
conformance/deviations.py. Source: Xen docs/misc/xenstore.txt.
"""
