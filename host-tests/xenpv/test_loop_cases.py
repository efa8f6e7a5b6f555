"""Cancellation and errors of tasks, under CPython; host-tests/boot/test_loop.py has the image."""

import pytest
from fixtures.loopcases import CASES, VirtualLoop, run

from xenpv.loop import SECOND


@pytest.mark.parametrize("one", CASES, ids=lambda one: one.name)
def test_case(one):
    assert run(one) == one.expected


def test_what_is_no_exception_ends_the_loop_at_once():
    loop, log = VirtualLoop(), []

    async def stubborn():
        try:
            await loop.sleep(100 * SECOND)
        finally:
            log.append("finally")
            await loop.sleep(SECOND)
            log.append("went on")

    async def main():
        loop.spawn(stubborn())
        await loop.sleep(SECOND)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.run(main())
    assert log == ["finally"]
    assert loop.now() == SECOND
