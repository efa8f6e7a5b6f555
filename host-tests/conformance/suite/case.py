"""A case: an async function that works below a directory of its own and tells what it saw.

Each module of the suite registers its cases here; run() goes through them. The rule: what was seen
is a short line of text that depends on nothing but the server's behaviour, so that it can be
compared wherever the suite runs.
"""

from xenpv import abi
from xenpv.errors import XenError, XenstoreError
from xenpv.text import printable

GUEST = "guest"
DOM0 = "dom0"
CASES = []
SAME = object()


class Case:
    """expected: by role (GUEST, DOM0), what is to be seen; a role that is missing is left out."""

    def __init__(self, function, guest, dom0):
        self.function = function
        self.name = function.__name__
        self.expected = {}
        if guest is not None:
            self.expected[GUEST] = guest
        if dom0 is not None:
            self.expected[DOM0] = guest if dom0 is SAME else dom0


def case(guest, dom0=SAME):
    """Register a case. guest, dom0: what such a client is to see; None: not a case for it."""

    def register(function):
        CASES.append(Case(function, guest, dom0))
        return function

    return register


class Here:
    """Where a case works. store: Xenstore; base: the case's own directory, which is there;
    top: the directory of all cases; domid: the client's own."""

    def __init__(self, store, top, base, domid):
        self.store = store
        self.top = top
        self.base = base
        self.domid = domid
        # What reset_watches() would end has to be ended otherwise by a client that lacks it.
        self.watches = []

    def __call__(self, name):
        """The path of a node of the case."""
        return self.base + "/" + name

    def short(self, path):
        """A path as a case tells it: "." for its directory, names below that without it."""
        if path == self.base:
            return "."
        begin = self.base + "/"
        return path[len(begin) :] if path[: len(begin)] == begin else path

    async def raw(self, type, payload, tx_id=0):
        """A request as it is, however wrong. Returns "ok" or the error's code."""
        return await code(self.store.request(type, payload, "raw", tx_id))

    async def watch(self, name, depth=None):
        """A watch whose first event has been taken."""
        watch = await self.store.watch(self(name) if name else self.base, depth)
        await watch.next()
        return watch

    async def events(self, *watches):
        """All that has come so far, of each watch in its order, as one line."""
        # What was caused before a request is told before its reply; some servers need one more.
        for _ in range(2):
            await self.store.get_domain_path(self.domid)
        found = []
        for watch in watches:
            while watch.waiting():
                found.append(self.short(await watch.next()))
        return " ".join(found) or "none"

    async def begin(self):
        """A transaction that is ended by commit() or abort()."""
        return await self.store.transaction().__aenter__()


async def commit(transaction):
    """Returns "ok" or the error's code."""
    return await code(transaction.__aexit__(None, None, None))


async def abort(transaction):
    return await code(transaction.request(abi.XS_TRANSACTION_END, b"F\0", "abort"))


async def code(work):
    """What came of an operation: "ok", or the code of the server's error."""
    try:
        await work
    except XenstoreError as e:
        return e.code
    return "ok"


async def in_turn(works):
    """Await operations one after the other. Returns what they give, as one line."""
    seen = []
    for work in works:
        seen.append(await work)
    return " ".join(seen)


async def value(work):
    """What an operation gave, as text, or the code of the server's error."""
    try:
        found = await work
    except XenstoreError as e:
        return e.code
    return printable(found) if isinstance(found, bytes) else str(found)


async def listing(work):
    """The names that a directory operation gave, sorted, as one line."""
    try:
        return " ".join(sorted(await work)) or "empty"
    except XenstoreError as e:
        return e.code


async def see(one, store, top, domid):
    """Run one case. Returns what it saw; an error that it does not expect is what it saw then."""
    here = Here(store, top, top + "/" + one.name, domid)
    await store.mkdir(here.base)
    try:
        seen = await one.function(here)
    except XenstoreError as e:
        seen = "raises " + e.code
    except (XenError, ValueError) as e:
        seen = "raises " + type(e).__name__
    if not store.connected():
        await store.close()
        await store.connect()
    await store.reset_watches()
    await store.rm(here.base)
    return seen


async def run(store, role, top, domid, tell):
    """Run all cases of a role. top: directory to work in; tell(name, seen) is called for each."""
    for one in CASES:
        if role in one.expected:
            tell(one.name, await see(one, store, top, domid))
    await store.rm(top)
