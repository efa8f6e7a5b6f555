"""ByteRing as generators: each access to shared memory is a point where the other end may act.

Made from the class's own source: every call of `hw` becomes a `yield` of its name and arguments,
whose value is what the memory gives. Machine then runs several such generators on one memory, in
any order that is asked for. Its processors keep their stores back as x86 ones may: a store reaches
memory in order but late, a processor sees its own at once, and a barrier or an event lets all out.
Source: Intel SDM volume 3, 8.2.2.
"""

import ast
import inspect
from collections import deque

from xenpv import ring

SLEEP = ("sleep",)
TELL = ("tell",)


class _Split(ast.NodeTransformer):
    """hw.f(x) -> (yield ("f", x)); calls of the class's own methods -> yield from."""

    def __init__(self, methods):
        self.methods = methods

    def visit_Call(self, node):
        self.generic_visit(node)
        owner = (
            node.func.value.id if isinstance(getattr(node.func, "value", None), ast.Name) else ""
        )
        if owner == "hw":
            words = [ast.Constant(node.func.attr), *node.args]
            return ast.Yield(ast.Tuple(words, ast.Load()))
        if owner == "self" and node.func.attr in self.methods:
            return ast.YieldFrom(node)
        return node


class _Without(ast.NodeTransformer):
    """One kind of hw's calls, left out of one method."""

    def __init__(self, call, method):
        self.call = call
        self.method = method
        self.inside = False

    def visit_FunctionDef(self, node):
        self.inside = node.name == self.method
        return self.generic_visit(node)

    def visit_Yield(self, node):
        left_out = self.inside and node.value.elts[0].value == self.call
        return ast.Constant(None) if left_out else node


def interleaved(cls, without=("", "")):
    """A class like cls whose methods are generators. without: (call of hw, method) to leave out."""
    tree = ast.parse(inspect.getsource(cls))
    body = tree.body[0].body
    methods = {item.name for item in body if isinstance(item, ast.FunctionDef)} - {"__init__"}
    tree = ast.fix_missing_locations(_Without(*without).visit(_Split(methods).visit(tree)))
    names = dict(vars(ring))
    exec(compile(tree, inspect.getsourcefile(cls), "exec"), names)
    return names[cls.__name__]


ByteRing = interleaved(ring.ByteRing)


class _Window:
    """What hw.mem() gives: reads and writes go the processor's way."""

    def __init__(self, cpu, addr, size):
        self.cpu = cpu
        self.addr = addr
        self.size = size

    def __bytes__(self):
        return bytes(self.cpu.load(self.addr + i) for i in range(self.size))

    def __setitem__(self, _, data):
        assert len(data) == self.size
        self.cpu.stores.append((self.addr, bytes(data)))


class Cpu:
    """One end. told: an event is pending; asleep: it waits for one."""

    def __init__(self, memory, work):
        self.memory = memory
        self.work = work
        self.stores = deque()
        self.answer = None
        self.told = False
        self.asleep = False
        self.done = False
        self.peer = self
        self.tells = 0

    def load(self, addr):
        value = self.memory[addr]
        for at, data in self.stores:
            if at <= addr < at + len(data):
                value = data[addr - at]
        return value

    def drain(self):
        """One store reaches memory."""
        addr, data = self.stores.popleft()
        self.memory[addr : addr + len(data)] = data

    def can_step(self):
        return not self.done and (not self.asleep or self.told)

    def step(self):
        """Go on to the next access."""
        if self.asleep:
            self.asleep = self.told = False
        try:
            name, *words = self.work.send(self.answer)
        except StopIteration:
            self.done = True
            return
        self.answer = getattr(self, name)(*words)

    # The accesses.

    def rd32(self, addr):
        return int.from_bytes(bytes(self.load(addr + i) for i in range(4)), "little")

    def wr32(self, addr, value):
        self.stores.append((addr, value.to_bytes(4, "little")))

    def mem(self, addr, size):
        return _Window(self, addr, size)

    def mb(self):
        while self.stores:
            self.drain()

    def rmb(self):
        """Loads are not reordered with loads."""

    def wmb(self):
        """Stores are not reordered with stores."""

    def tell(self):
        self.mb()
        self.peer.told = True
        self.tells += 1

    def sleep(self):
        # Waiting is a hypercall, or a return from one.
        self.mb()
        self.asleep = True


def run(cpus, choices, limit=200000):
    """Let the ends act until all are done. choices: bytes; each picks who acts next.

    Raises AssertionError when nobody can act although not all are done.
    """
    turn = iter(choices)
    for count in range(limit):
        acts = [cpu.step for cpu in cpus if cpu.can_step()]
        acts += [cpu.drain for cpu in cpus if cpu.stores]
        if all(cpu.done for cpu in cpus):
            return
        assert acts, "everyone sleeps"
        acts[next(turn, count) % len(acts)]()
    raise AssertionError("no end")
