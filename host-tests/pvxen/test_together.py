"""Images side by side on one embedded Xen: one time for all, one order, and an end for each."""

import re

import pytest

from pvdump.script import text
from pvxen.image import EmbeddedImage
from pvxen.loader import NotAnImage
from pvxen.together import Together
from pvxen.toolstack import Toolstack
from tools.image import build
from tools.imageconfig import ROOT
from xenpv import abi

AT = 0x1000000
MS = 10**6
# Says when it woke up, so many times so many ms after another.
SLEEPER = """
began = %d
for _ in range(%d):
    await loop.sleep(%d * 10**6)
    print("woke %%d" %% (hw.now() // 10**6 - began))
"""


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    built = build(tmp_path_factory.mktemp("image"), config=ROOT / "pvboot.yaml")
    return built.elf.read_bytes(), built.bin.read_bytes()


@pytest.fixture
def run(files):
    """Runs scripts. Returns (the ends' reasons, what was said as (domain, line), the toolstack)."""

    def of(*scripts, seed=0, elf=None):
        xen = Toolstack(seed)
        said, pairs = [], []

        def hear(number):
            line = bytearray()

            def take(part):
                line.extend(part)
                if part.endswith(b"\n"):
                    said.append((number, line.decode().strip()))
                    line.clear()

            return take

        for number, script in enumerate(scripts):
            whole = text.compose(script.encode(), {})
            options = {"door": "pvh", "modules": ((AT, len(whole)),), "size": 64 << 20}
            domain = xen.create(cmdline=b"pvdump.run=script", **options)
            domain.machine.ram[AT : AT + len(whole)] = whole
            body = files[0] if elf is None or not number else elf
            pairs.append((EmbeddedImage(body, files[1], hear(number)), domain))
        reasons = Together(pairs).run()
        return reasons, [each for each in said if "pvdump: " not in each[1]], xen

    return of


def test_all_sleep_at_the_same_time(run):
    began = Toolstack().clock.now // MS
    reasons, said, _ = run(SLEEPER % (began, 3, 1000), SLEEPER % (began, 5, 700))
    assert reasons == [abi.SHUTDOWN_poweroff] * 2
    found = [(number, int(re.fullmatch(r"woke (\d+)", line)[1])) for number, line in said]
    times = [when for _, when in found]
    assert times == sorted(times)
    assert times[-1] < 4000
    assert [number for number, _ in found] == [1, 0, 1, 0, 1, 1, 0, 1]


def test_one_that_ends_leaves_the_other_its_time(run):
    _, said, _ = run("print('short')", SLEEPER % (0, 2, 5000))
    assert [number for number, _ in said] == [0, 1, 1]


def test_one_that_fails_crashes_alone(run):
    reasons, said, _ = run("nothing", "await loop.sleep(10**9)\nprint('well')")
    assert reasons == [abi.SHUTDOWN_crash, abi.SHUTDOWN_poweroff]
    assert (1, "well") in said


def test_one_that_is_no_image_ends_both(run):
    with pytest.raises(NotAnImage):
        run("await loop.sleep(10**15)", "print('never')", elf=b"no image")


def test_a_seed_repeats_a_run(run):
    script = "for _ in range(5):\n    print(await store.read('name'), hw.now())\n"
    runs = [run(script, script, seed=seed)[1] for seed in (5, 5, 6)]
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]
