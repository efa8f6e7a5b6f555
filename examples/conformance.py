# Runs the conformance suite of xenstore servers, and tells which cases see something else.
#
# The suite is a package that comes with the script:
#   ./build.py run examples/conformance.py --with host-tests/conformance/suite
#
# Some cases look at nodes that domain 0 has made for the guest (suite/stage.py says which); where
# it has made none, these are left out.

from suite import stage
from suite.all import CASES, GUEST
from suite.case import see

from xenpv.errors import XenstoreError

TOP = "data/conf"

# The suite ends all watches and connects anew: the toolstack is not listened to meanwhile.
await guest.leave()
try:
    await store.read(stage.TOP)
    is_staged = True
except XenstoreError:
    is_staged = False
looked = []
path_of = stage.path


def path(name):
    looked.append(name)
    return path_of(name)


stage.path = path
domid = await store.read_int("domid")
await store.mkdir(TOP)
right = others = left_out = 0
for case in CASES:
    if GUEST not in case.expected:
        continue
    looked.clear()
    seen = await see(case, store, TOP, domid)
    if looked and not is_staged:
        left_out += 1
    elif seen == case.expected[GUEST]:
        right += 1
    else:
        others += 1
        print("%s: %s; %s expected" % (case.name, seen, case.expected[GUEST]))
await store.rm(TOP)
print("%d cases as expected, %d otherwise, %d left out" % (right, others, left_out))
