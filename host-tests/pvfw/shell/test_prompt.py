"""The prompt of pvboot, the image itself in an embedded domain: typed at as a person would."""

import pytest
from fixtures.typist import Typist, image_of

from pvxen.sink import Memory
from tools.image import build
from tools.imageconfig import ROOT
from xenpv import abi


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return image_of(build(tmp_path_factory.mktemp("image"), config=ROOT / "pvboot.yaml"))


@pytest.fixture
def ask(image):
    """Types lines. Returns what was answered to each."""

    def of(*lines, **options):
        typist = Typist(image, lines, **options).run()
        assert typist.reason == abi.SHUTDOWN_poweroff, typist.said
        return typist.answers

    return of


def test_an_expression_is_answered(ask):
    assert ask("1+1", "x = 20", "x + 1", "'a' * 3") == ["2", "", "21", "'aaa'"]


def test_an_exception_ends_the_statement_alone(ask):
    answers = ask("1 // 0", "nobody", "1 +", "2")
    assert answers[0].endswith("ZeroDivisionError: divide by zero")
    assert "NameError" in answers[1]
    assert "SyntaxError" in answers[2]
    assert answers[3] == "2"
