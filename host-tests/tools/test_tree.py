"""The tree itself: each step of ./build.py lint finds nothing to complain of."""

from collections.abc import Callable

import pytest

from tools import lint


@pytest.mark.parametrize("step", lint.STEPS, ids=lambda step: step.__name__)
def test_lint_is_content(step: Callable[[], str]) -> None:
    complaints = step()
    if complaints:
        pytest.fail(complaints, pytrace=False)
