"""What every test may import: `hw` for CPython needs its C, compiled here when it is not yet."""

from tools import hwlib

hwlib.install()
