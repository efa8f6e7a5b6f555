"""The time of day, as Xen shares it with a guest.

Used for the times in the superblock. Rule: it is read as a whole, and a wrong time is better than
no dump, so the reads are bounded.
"""

import hw
from xenpv import abi
from xenpv.loop import SECOND

# How often it is read before a time is taken that may be torn.
READS = 100


def now_utc():
    """Return the time in seconds since 1970.

    Source: xen.h, struct shared_info: wc_* is the time at system time 0; while Xen changes it,
    wc_version is odd, and it is another one afterwards.
    """
    page = hw.shared_info()
    for _ in range(READS):
        version = hw.rd32(page + abi.SHARED_INFO_WC_VERSION)
        hw.rmb()
        seconds = hw.rd32(page + abi.SHARED_INFO_WC_SEC)
        seconds |= hw.rd32(page + abi.SHARED_INFO_WC_SEC_HI) << 32
        ns = hw.rd32(page + abi.SHARED_INFO_WC_NSEC)
        hw.rmb()
        if version & 1 == 0 and version == hw.rd32(page + abi.SHARED_INFO_WC_VERSION):
            break
    return seconds + (ns + hw.now()) // SECOND
