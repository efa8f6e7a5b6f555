"""`./build.py bench xenstore`: operations a second, one at a time and many in flight.

The loads are bench/guest/load/loads.py. They run on the embedded Xen under CPython, by the host's
clock; and on real Xens in an image of their own, by Xen's clock, beside a Linux guest on the same
Xen whose client is libxenstore, through /dev/xen/xenbus, with one process and with as many
processes as we have requests in flight. Of all rounds the middle one by its ratio is printed. QEMU
has one CPU, as everywhere in the lab, but for one Xen where it has two: there guest and server can
work at the same time. The lines of `bench watches` follow.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import yaml

from lab import program
from lab.guest import Guest
from lab.xen import Xen
from tools import Trouble, hwlib, image
from tools.progress import Display

hwlib.install()

from bench import watches  # noqa: E402
from bench.guest.load import loads  # noqa: E402 - `hw` is compiled by now
from pvxen.guest import EmbeddedGuest  # noqa: E402
from xenpv.evtchn import EventChannels  # noqa: E402
from xenpv.hypercall import Hypercalls  # noqa: E402
from xenpv.pollloop import PollLoop  # noqa: E402
from xenpv.xenstore.client import Xenstore  # noqa: E402
from xenpv.xenstore.ring import RingTransport  # noqa: E402

ROOT = Path(__file__).resolve().parent.parent
HERE = Path(__file__).resolve().parent / "guest"
XENS = (("bookworm", "oxenstored"), ("bookworm", "xenstored"), ("trixie", "xenstored"))
ROUNDS = 3
NODE_SIZE = 8192  # 3 KiB values are over the default quota
MANY = loads.WORKERS
SECONDS = 900


class Round(NamedTuple):
    """The result of one load.

    rate: operations a second; sent, updates: notifications and moves of an index per operation.
    """

    rate: float
    sent: float
    updates: float


# By load and number of workers.
Rounds = dict[tuple[str, int], list[Round]]


def run(progress: Display) -> None:
    """Measure everywhere and print a line for each comparison."""
    with tempfile.TemporaryDirectory(prefix="pvdump-bench-") as name:
        folder = Path(name)
        growth(folder, progress)
        with progress.stage("embedded Xen"):
            ours = embedded()
        compare_flight("embedded Xen", ours)
        for suite, xenstored in XENS:
            with progress.stage(f"{suite} {xenstored}"):
                real(suite, xenstored, folder)
        with progress.stage("two CPUs"):
            side_by_side(folder)
    watches.run(progress)


def growth(folder: Path, progress: Display) -> None:
    """Show how many bytes the client adds to the image."""
    whole = image.build(folder / "image", progress=progress)
    shutil.copytree(
        ROOT / "drivers/xenpv", folder / "xenpv", ignore=shutil.ignore_patterns("xenstore")
    )
    config = yaml.safe_load((ROOT / "image.yaml").read_text(encoding="utf-8"))
    config["frozen"] = [
        str(folder / "xenpv") if name == "drivers/xenpv" else name for name in config["frozen"]
    ]
    (folder / "image.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    bare = image.build(folder / "bare", progress=progress, config=folder / "image.yaml")
    show("pvdump.bin, beside one without xenstore", whole.sizes.bin, bare.sizes.bin, "bytes", less)


def embedded() -> Rounds:
    """Show the loads on the embedded Xen."""
    EmbeddedGuest(quotas={"node-size": NODE_SIZE})
    xen = Hypercalls()
    loop = PollLoop(xen, EventChannels(xen))
    store = Xenstore(loop, RingTransport(xen, loop))
    found: Rounds = {}

    def tell(name: str, workers: int, *numbers: int) -> None:
        found.setdefault((name, workers), []).append(figures(*numbers))

    async def work() -> None:
        await store.connect()
        await loads.prepare(store)
        for _ in range(ROUNDS):
            await loads.measure(loop, store, time.perf_counter_ns, tell)

    loop.run(work())
    return found


def real(suite: str, xenstored: str, folder: Path) -> None:
    """Show the loads on a real Xen, ours and a Linux guest's in turn."""
    client = program.build(HERE / "client.c", suite)
    where = f"{suite} {xenstored}"
    with Xen(suite, xenstored, node_size=NODE_SIZE) as xen:
        run = (
            f"chmod +x /client\nwhile read line; do /client {loads.COUNT} {MANY}; done </dev/hvc0\n"
        )
        linux = xen.boot(Guest.load(HERE / "linux.yaml", run=run, files={"client": str(client)}))
        said = ""
        last = rf"^client {loads.LOADS[-1][0]}\|{MANY}\|"
        for number in range(1, ROUNDS + 1):
            said += in_image(xen, folder, f"round-{number}")
            linux.type("")
            linux.wait_console(rf"(?s)({last}.*?){{{number}}}", SECONDS)
        heap = in_image(xen, folder, "heap", "heap")
        mine, theirs = read(said, "bench"), read(linux.console(), "client")
    compare_flight(where, mine)
    compare_linux(where, mine, theirs)
    before, after = (int(line.split("|")[1]) for line in heap.splitlines() if line[:5] == "heap ")
    show(f"{where}, heap after 10,000 more operations", after, before, "bytes", less)


def side_by_side(folder: Path) -> None:
    """Show ours where guest and server each have a CPU and can work at the same time."""
    said = ""
    with Xen(*XENS[1], node_size=NODE_SIZE, cpus=2) as xen:
        for number in range(1, ROUNDS + 1):
            said += in_image(xen, folder, f"round-{number}")
    compare_flight(f"{' '.join(XENS[1])}, two CPUs", read(said, "bench"))


def in_image(xen: Xen, folder: Path, name: str, cmdline: str = "") -> str:
    """Run our image once. Returns its console."""
    ours = image.build(folder / "load", config=HERE / "image.yaml")
    path = ROOT / "lab/guests/pvh.yaml"
    domain = xen.create(Guest.load(path, name=name, kernel=str(ours.elf), cmdline=cmdline))
    domain.wait_console("^bench done", SECONDS)
    return domain.console()


def read(text: str, word: str) -> Rounds:
    """Return the rounds that a guest has printed: "WORD NAME|WORKERS|NUMBER|..."."""
    found: Rounds = {}
    for line in text.splitlines():
        start, _, rest = line.partition(" ")
        if start == word and "|" in rest:
            name, workers, *numbers = rest.split("|")
            found.setdefault((name, int(workers)), []).append(figures(*map(int, numbers)))
    return found


def figures(count: int, ns: int, sent: int = 0, updates: int = 0) -> Round:
    """Return a Round of `count` operations that took so many ns."""
    return Round(count * 1e9 / ns, sent / count, updates / count)


def compare_flight(where: str, ours: Rounds) -> None:
    """Show many in flight beside one at a time, and how many notifications each takes."""
    for name, _ in loads.LOADS:
        one, many = ours[name, 1], ours[name, MANY]
        what = f"{where}, {name}"
        middle(f"{what}, {MANY} in flight beside one at a time", many, one)
        for rounds, flight in ((one, "one at a time"), (many, f"{MANY} in flight")):
            sent, updates = (sum(getattr(r, f) for r in rounds) for f in ("sent", "updates"))
            title = f"{what}, {flight}, notifications beside one for each move of an index"
            show(title, sent / len(rounds), updates / len(rounds), "per operation", less)


def compare_linux(where: str, ours: Rounds, theirs: Rounds) -> None:
    """Show ours beside libxenstore in a Linux guest."""
    for name, _ in loads.LOADS:
        what = f"{where}, {name}"
        middle(f"{what}, one at a time beside libxenstore", ours[name, 1], theirs[name, 1])
        title = f"{what}, {MANY} in flight beside {MANY} processes with libxenstore"
        middle(title, ours[name, MANY], theirs[name, MANY])


def middle(name: str, ours: list[Round], peer: list[Round]) -> None:
    """Show the pair of rounds with the median ratio."""
    if len(ours) != len(peer):
        raise Trouble(f"{name}: a guest's console lost a line; try again when nothing else runs")
    pairs = sorted(zip(ours, peer, strict=True), key=lambda pair: pair[0].rate / pair[1].rate)
    mine, other = pairs[len(pairs) // 2]
    show(name, mine.rate, other.rate, "op/s", more)


def more(ours: float, peer: float) -> float:
    """Return the ratio of figures where more is better."""
    return ours / peer


def less(ours: float, peer: float) -> float:
    """Return the ratio of figures where less is better."""
    return peer / ours


def show(
    name: str, ours: float, peer: float, unit: str, ratio: Callable[[float, float], float]
) -> None:
    """Print one comparison as a line of JSON."""
    line = {"name": f"xenstore, {name}", "ours": round(ours, 2), "peer": round(peer, 2)}
    print(json.dumps({**line, "unit": unit, "ratio": round(ratio(ours, peer), 2)}), flush=True)
