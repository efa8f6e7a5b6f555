"""Runs in dom0: `pvdump ARGUMENTS`, whose block backend says and does what XCP-ng's tapback does.

44 KiB a request, no flush, no persistent grants, a ring of 8 pages at most.
Source: blktap's tapback/backend.c, tapback/frontend.c, drivers/td-req.c.
"""

import dataclasses
import sys

from pvdump import cli
from pvdump.blkback import negotiate, request

SAID = ("sectors", "sector-size", "info", "feature-barrier")
parse = negotiate.parse


def without_persistent(keys):
    """Parse a front end's keys, but for the one that tapback does not look at."""
    return dataclasses.replace(parse(keys), persistent=False)


negotiate.OFFERS = {"max-ring-page-order": 3}
negotiate.PROPERTIES = {name: negotiate.PROPERTIES[name] for name in SAID}
negotiate.parse = without_persistent
request.KNOWN = (request.READ, request.WRITE, request.BARRIER)

sys.exit(cli.main(sys.argv[1:]))
