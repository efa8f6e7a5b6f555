"""Watches against a model: every watch is asked about every change."""

from hypothesis import given, settings
from hypothesis import strategies as st
from xenstored.clients import Client
from xenstored.test_model import START, domids, fresh, operations, paths

from pvdump.xenstored.domain import DOM0
from pvdump.xenstored.server import Xenstored
from xenpv import abi

GUEST = 2
TYPES = {
    "write": abi.XS_WRITE,
    "mkdir": abi.XS_MKDIR,
    "rm": abi.XS_RM,
    "set_perms": abi.XS_SET_PERMS,
}

watches = st.lists(
    st.tuples(paths, st.sampled_from([None, None, 0, 1, 2])), max_size=6, unique_by=lambda w: w[0]
)
changes = operations.filter(lambda operation: operation[0] in ("write", "mkdir", "rm", "set_perms"))


def concerns(watch, depth, path):
    """Whether a change of a path is at or below a watched path, no deeper than it looks."""
    if path == watch:
        return True
    base = watch.rstrip("/") + "/"
    return path.startswith(base) and (depth is None or path[len(base) :].count("/") < depth)


def told(before, after, path, watched, removed):
    """What one change tells the guest: (path, token), in no order."""
    events = set()
    for number, (watch, depth) in enumerate(watched):
        for gone in removed if removed else [path]:
            # Of a removed branch its top is told to all, what is below to watches of just that.
            if gone != path and gone != watch:
                continue
            models = [model for model in (before, after) if gone in model.nodes]
            if not any("r" in model.letters(GUEST, gone) for model in models):
                continue
            if concerns(watch, depth, gone):
                events.add((gone, str(number)))
    return events


def ask(client, operation, tx_id=0):
    """An operation as a packet. Returns its reply."""
    name, path, *rest = operation
    payload = path.encode() + b"\0"
    if name == "write":
        payload += rest[0]
    if name == "set_perms":
        payload += b"".join(f"{letter}{who}".encode() + b"\0" for letter, who in rest[0])
    return client.ask(TYPES[name], payload, tx_id)


def setup(watched):
    server = Xenstored()
    dom0, guest = Client(server, DOM0), Client(server, GUEST)
    dom0.rm("/tool")
    for operation in START:
        ask(dom0, operation)
    for number, (path, depth) in enumerate(watched):
        guest.watch(path, str(number), depth)
    guest.events_since()
    return server, dom0, guest


def step(model, domid, operation):
    """Apply to the model. Returns (before, changed path or None, removed paths)."""
    before = model.copy()
    name, path = operation[:2]
    error = model.apply(domid, *operation)
    removed = [p for p in before.nodes if p not in model.nodes]
    nothing = error or (name == "mkdir" and path in before.nodes) or (name == "rm" and not removed)
    return before, None if nothing else path, removed


def events_of(client):
    return [tuple(event.split("|")[:2]) for event in client.events_since()]


@settings(max_examples=200, deadline=None)
@given(watches, st.lists(st.tuples(domids, changes), max_size=12))
def test_each_change_is_told_to_the_watches_it_concerns(watched, script):
    server, dom0, guest = setup(watched)
    _, model = fresh()
    model.targets = {}
    others = {DOM0: dom0, 1: Client(server, 1), GUEST: guest, 3: Client(server, 3)}
    for domid, operation in script:
        before, path, removed = step(model, domid, operation)
        ask(others[domid], operation)
        events = events_of(guest)
        expected = set() if path is None else told(before, model, path, watched, removed)
        assert set(events) == expected
        assert len(events) == len(expected)


@settings(max_examples=200, deadline=None)
@given(watches, st.lists(changes.filter(lambda o: o[0] in ("write", "mkdir")), max_size=8))
def test_a_transaction_s_changes_are_told_at_its_commit_in_their_order(watched, script):
    _, dom0, guest = setup(watched)
    _, model = fresh()
    start, number, changed = model.copy(), dom0.start(), []
    for operation in script:
        _, path, _ = step(model, DOM0, operation)
        ask(dom0, operation, number)
        if path is not None and path not in changed:
            changed.append(path)
    assert guest.events_since() == []
    dom0.end(number)
    expected = [told(start, model, path, watched, []) for path in changed]
    events = events_of(guest)
    for each in expected:
        assert set(events[: len(each)]) == each
        events = events[len(each) :]
    assert events == []
