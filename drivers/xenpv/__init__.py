"""Drivers for Xen guests, in the Python that MicroPython and CPython share.

They speak to Xen through the module `hw` alone and know nothing of dumps or of any host.
"""
