"""Rows of a matrix: few in the usual run, all of them when asked."""

import itertools

import pytest
from fixtures import matrix

AXES = [["4.17", "4.20", "4.21"], ["pvh", "hvm"], ["blkback", "qdisk", "pvdump"], [0, 1]]


def test_every_pair_of_values_is_in_a_row():
    rows = matrix.rows(AXES)
    for (i, one), (j, other) in itertools.combinations(enumerate(AXES), 2):
        for pair in itertools.product(one, other):
            assert any((row[i], row[j]) == pair for row in rows)


def test_the_rows_are_few():
    # Nine at least: so many pairs have two of the axes.
    assert len(matrix.rows(AXES)) <= 10


def test_rows_of_axes_that_are_apart_have_every_value_and_no_more():
    rows = matrix.rows(AXES, apart=True)
    assert [set(values) for values in zip(*rows, strict=True)] == [set(axis) for axis in AXES]
    assert len(rows) == 3


def test_one_axis_has_all_its_values():
    assert matrix.rows([["a", "b"]]) == [("a",), ("b",)]


def test_all_rows_are_there_when_asked():
    assert len(matrix.rows(AXES, everything=True)) == 3 * 2 * 3 * 2


def test_the_choice_is_always_the_same():
    assert matrix.rows(AXES) == matrix.rows(AXES)


@pytest.mark.matrix(place=["a", "b"], door=["c", "d"])
def test_a_marked_test_gets_its_axes(place, door):
    assert (place in "ab", door in "cd") == (True, True)
