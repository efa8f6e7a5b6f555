"""Runs in the image: does what the toolstack asks for, and writes to its first disk without end.

Number n is written into block n % BLOCKS of the disk, a page full of its 16 digits; a line says
which numbers are acknowledged. test_controlled.py in host-tests/pvxen and test_control.py in
host-tests/lab read the lines and the disk.
"""

import hw
from xenpv.abi import PAGE_SIZE
from xenpv.block import disks
from xenpv.block.front import BlkFront
from xenpv.control import Control
from xenpv.guest import Guest
from xenpv.loop import SECOND
from xenpv.xenbus import Device

BLOCKS = 256
AT_ONCE = 8
PAUSE = SECOND // 20


def say(line):
    print("guest: " + line)


async def write(guest, number):
    """Write numbers to a disk."""
    device = Device(guest.store, guest.loop, disks.HOME + "/" + str(number))
    await device.find()
    disk = BlkFront(guest.loop, guest.grants, device, say=say)
    await disk.connect()
    pages = hw.alloc_pages(AT_ONCE)
    n = 0
    while True:
        for i in range(AT_ONCE):
            page = pages + i * PAGE_SIZE
            digits = ("0" * 16 + str(n + i))[-16:]
            hw.mem(page, PAGE_SIZE)[:] = digits.encode() * (PAGE_SIZE // 16)
            await disk.write((n + i) % BLOCKS * 8, page // PAGE_SIZE, 8)
        await disk.drain()
        n += AT_ONCE
        say("acknowledged " + str(n))
        await guest.loop.sleep(PAUSE)


async def work(guest):
    await guest.store.connect()
    for number in (await disks.numbers(guest.store))[:1]:
        guest.loop.spawn(write(guest, number))
    await Control(guest, say).run()


def main():
    guest = Guest()
    guest.loop.run(work(guest))
