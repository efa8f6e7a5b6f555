"""Loads for the xenstore client, the same under CPython and, frozen into an image, in a guest."""
