"""A ratio over 1 is in our favour, whatever the unit is."""

import json

import pytest

from bench import figure


@pytest.mark.parametrize("unit", ["s", "bytes", "pages", "MiB", "ns/page"])
def test_less_of_what_is_spent_is_better(unit, capsys):
    figure.show("x", 1, 2, unit)
    assert json.loads(capsys.readouterr().out)["ratio"] == 2


def test_more_of_a_speed_is_better(capsys):
    figure.show("x", 1, 2, "MiB/s")
    assert json.loads(capsys.readouterr().out)["ratio"] == 0.5
