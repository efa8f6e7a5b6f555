"""Any operations of several domains and transactions, against a model of the store.

The model is a dict that is copied and scanned in full; what the server does in other ways must come
to the same. A transaction that commits must have been told what it would have been told had it run
alone, at the moment of its commit.
"""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from xenstored.model import Model

from pvdump.xenstored.domain import DOM0, QUOTAS, DomainRecord, StoreError
from pvdump.xenstored.transaction import Transaction
from pvdump.xenstored.tree import Tree

PLACES = ("/d", "/d/a", "/d/a/x", "/d/a/y", "/d/b", "/d/b/x", "/e", "/e/a", "/")
TARGETS = {3: 2}
QUOTA = dict.fromkeys(QUOTAS, 0)

paths = st.sampled_from(PLACES)
domids = st.sampled_from([DOM0, 1, 2, 3])
entries = st.tuples(st.sampled_from("nrwb"), st.sampled_from([0, 1, 2]))
perms = st.lists(entries, min_size=1, max_size=3).map(tuple)
values = st.sampled_from([b"", b"1", b"2"])
operations = st.one_of(
    st.tuples(st.sampled_from(["read", "directory", "get_perms", "mkdir", "rm"]), paths),
    st.tuples(st.just("write"), paths, values),
    st.tuples(st.just("set_perms"), paths, perms),
)
START = [
    ("write", "/d", b""),
    ("set_perms", "/d", (("b", 1), ("r", 2))),
    ("write", "/d/a/x", b"0"),
    ("write", "/e", b""),
    ("set_perms", "/e", (("r", 2),)),
]


def domain(domid):
    made = DomainRecord(domid, 0, QUOTA)
    made.target = TARGETS.get(domid)
    return made


def ask(nodes, who, operation):
    """The reply of a tree or a transaction, or the error's name."""
    name, *args = operation
    return refusal_or(getattr(nodes, name), who, *args)


def refusal_or(call, *args):
    """What a call gives, or its error's name."""
    try:
        return call(*args)
    except StoreError as error:
        return error.code


def contents(tree):
    found, todo = {}, ["/"]
    for path in todo:
        node = tree.nodes[path]
        found[path] = (node.value, node.perms, list(node.kids.names))
        base = "" if path == "/" else path
        todo.extend(f"{base}/{name}" for name in node.kids.names)
    return found


def expected(model):
    return {
        path: (value, perms, model.children(path)) for path, (value, perms) in model.nodes.items()
    }


def fresh():
    """A tree and a model with the same nodes."""
    tree, model = Tree(), Model(targets=TARGETS)
    ask(tree, domain(DOM0), ("rm", "/tool"))
    for operation in START:
        ask(tree, domain(DOM0), operation)
        model.apply(DOM0, *operation)
    return tree, model


@settings(deadline=None)
@given(st.lists(st.tuples(domids, operations), max_size=30))
def test_operations_of_any_domains_do_what_the_model_does(script):
    tree, model = fresh()
    for domid, operation in script:
        assert ask(tree, domain(domid), operation) == model.apply(domid, *operation)
    assert contents(tree) == expected(model)
    assert tree.check() == []


def related(one, other):
    """Whether a change of one path may matter to who named the other."""
    return one == other or below(one, other) or below(other, one)


def below(path, base):
    return path.startswith(base.rstrip("/") + "/")


CHANGES = ("write", "mkdir", "rm", "set_perms")


class Interleaving(RuleBasedStateMachine):
    """Three transactions at once, and operations outside of all."""

    def __init__(self):
        super().__init__()
        self.tree, self.model = fresh()
        self.open = {}
        self.done = Counter()

    @rule(number=st.integers(0, 2), domid=domids)
    def start(self, number, domid):
        """One that is open already is dropped."""
        self.open[number] = (Transaction(self.tree, domain(domid)), domid, [], [])

    @rule(number=st.integers(0, 2), operation=operations)
    def inside(self, number, operation):
        if number in self.open:
            transaction, _, log, _ = self.open[number]
            log.append((operation, ask(transaction, transaction.who, operation)))

    @rule(domid=domids, operation=operations)
    def outside(self, domid, operation):
        before = self.model.copy()
        assert ask(self.tree, domain(domid), operation) == self.model.apply(domid, *operation)
        self.tell(before, [operation])

    @rule(number=st.integers(0, 2))
    def commit(self, number):
        if number not in self.open:
            return
        transaction, domid, log, others = self.open.pop(number)
        before, after = self.model.copy(), self.model.copy()
        refusal = refusal_or(transaction.commit)
        self.done[refusal or "committed"] += 1
        if refusal is not None:
            assert refusal == "EAGAIN"
            named = [operation[1] for operation, _ in log]
            assert any(related(one, other) for one in named for other in others)
            return
        for operation, reply in log:
            assert after.apply(domid, *operation) == reply
        self.model = after
        self.tell(before, [operation for operation, _ in log])

    def tell(self, before, operations):
        """The open transactions learn which paths others changed, or wrote to, or made anew."""
        changed = {
            path
            for path in before.nodes.keys() | self.model.nodes.keys()
            if before.nodes.get(path) != self.model.nodes.get(path)
        }
        changed |= {path for name, path, *_ in operations if name in CHANGES}
        for _, _, _, others in self.open.values():
            others.extend(changed)

    @invariant()
    def the_tree_is_the_model(self):
        assert contents(self.tree) == expected(self.model)
        assert self.tree.check() == []


TestInterleaving = Interleaving.TestCase
TestInterleaving.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
