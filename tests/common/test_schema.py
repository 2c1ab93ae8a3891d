"""Tests of schema.py: what each check lets pass, and what it says of the rest."""

import numpy as np
import pytest

from common import schema

NAN, INF = float("nan"), float("inf")

PASS = {
    "text": (schema.text, ["", "a b", "ä±漢"]),
    "boolean": (schema.boolean, [True, False]),
    "whole": (schema.whole(0, 3), [0, 3]),
    "number": (schema.number(0, 1), [0, 1, 0.5, 1.0]),
    "any number": (schema.number(), [-1e300, 10**300, 0]),
    "nullable": (schema.nullable(schema.whole()), [None, -4]),
    "list": (schema.list_of(schema.whole(), 2), [[1, 2]]),
    "record": (
        schema.record({"a": schema.text}, {"b": schema.text}),
        [{"a": ""}, {"a": "x", "b": "y", "c": NAN}],
    ),
    "by name": (schema.by_name(schema.whole()), [{}, {"a": 1, "b": -2}]),
    "columns": (schema.columns({"a": schema.whole()}), [{"a": []}, {"a": [1, 2]}]),
    "flags": (schema.flag_values, [{}, {"a": None, "b": ["x", 1], "c": "\x1b"}]),
    "array": (
        schema.array("fi", (None, 2), 0, 3),
        [np.zeros([0, 2]), np.array([[0, 3], [1, 2]])],
    ),
    "binary": (schema.binary((2,)), [np.array([0.0, 1.0]), np.array([True, False])]),
    "or another": (schema.binary((2,), 0.3), [np.array([0.3, 1], np.float32)]),
}
REFUSE = [
    (schema.text, [3, None, "a\nb", "\x1b[31m", "\ud800", "\u202e"], "printable text"),
    (schema.boolean, [0, 1, None, "true"], "true or false"),
    (
        schema.whole(0, 3),
        [-1, 4, True, 1.0, NAN, "1", None, 10**400],
        "a whole number from 0 to 3",
    ),
    (schema.whole(1), [0, 2**53 + 1], "a whole number from 1 on"),
    (schema.number(0, 1), [NAN, INF, True, -0.1, 1.1, 10**400], "a number from 0 to 1"),
    (schema.number(), [NAN, INF, -INF, 10**400, None, [1]], "a number"),
    (schema.nullable(schema.text), [3], "printable text"),
    (schema.list_of(schema.text), ["ab", {}, None], "a list"),
    (schema.list_of(schema.text, 2), [["a"], []], "a list of 2"),
    (schema.record({}), [[], "a", None], "an object"),
    (schema.flag_values, [[], "a"], "an object"),
    (schema.by_name(schema.text), [[], None], "an object"),
    (
        schema.array("f", (None, 2)),
        [np.zeros([2], int), np.zeros([2], "U3"), [[0.0, 1.0]], None],
        "an array of the right kind of numbers",
    ),
    (
        schema.array("f", (None, 2)),
        [np.zeros([2, 3]), np.zeros([2])],
        "of shape [n, 2]",
    ),
]


@pytest.mark.parametrize("name", PASS)
def test_what_passes(name):
    check, values = PASS[name]
    for value in values:
        check(value, "x")


@pytest.mark.parametrize(("check", "values", "what"), REFUSE)
def test_what_is_refused(check, values, what):
    for value in values:
        with pytest.raises(ValueError) as caught:
            check(value, "x")
        assert str(caught.value) == f"x is not {what}", value


@pytest.mark.parametrize(
    ("check", "value", "reason"),
    [
        (schema.list_of(schema.text), ["a", 3], "x[1] is not printable text"),
        (schema.record({"a": schema.text}), {"a": 3}, "x.a is not printable text"),
        (schema.record({"a": schema.text}), {}, 'x has no "a"'),
        (
            schema.record({}, {"b": schema.text}),
            {"b": 3},
            "x.b is not printable text",
        ),
        (schema.by_name(schema.text), {"a": 3}, "x.a is not printable text"),
        (
            schema.by_name(schema.text),
            {"\x1b": ""},
            "a name in x is not printable text",
        ),
        (
            schema.columns({"a": schema.whole(), "b": schema.whole()}),
            {"a": [1], "b": []},
            "x has lists of several lengths",
        ),
        (
            schema.flag_values,
            {"a": [[1]]},
            "x holds something that is no value of a flag",
        ),
        (
            schema.array("f"),
            np.array([0, NAN]),
            "x holds a number that is not finite",
        ),
        (
            schema.array("i", None, 0, 3),
            np.array([0, -1]),
            "x holds a number that is not from 0 to 3",
        ),
        (
            schema.binary((2,)),
            np.array([0.5, 1]),
            "x holds a number that is not 0 or 1",
        ),
        (
            schema.binary((2,), 0.25),
            np.array([0.5, 1]),
            "x holds a number that is not 0, 0.25 or 1",
        ),
    ],
)
def test_the_place_that_is_wrong_is_named(check, value, reason):
    with pytest.raises(ValueError) as caught:
        check(value, "x")
    assert str(caught.value) == reason


def test_the_file_itself_has_no_place():
    check = schema.record({"a": schema.list_of(schema.text)})
    for value, reason in [
        ([], "it is not an object"),
        ({}, 'it has no "a"'),
        ({"a": [3]}, "a[0] is not printable text"),
    ]:
        with pytest.raises(ValueError) as caught:
            check(value, "")
        assert str(caught.value) == reason
