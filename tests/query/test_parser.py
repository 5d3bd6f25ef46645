"""The grammar of queries: what is read, what is written back, and what the errors say."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import causalppl as cp
from causalppl.notation.terms import (
    Arithmetic,
    Comparison,
    Expectation,
    Number,
    Outcome,
    Probability,
    Setting,
)
from causalppl.query import parse, to_text

PLAIN = st.from_regex(r"[a-z_][a-z0-9_]{0,5}([./][a-z0-9]{1,3})?", fullmatch=True)
NAMES = st.one_of(
    PLAIN,
    st.sampled_from(["P", "E", "do", "E2", "layer.0.weight", "a/b", "größe"]),
    st.text(min_size=1, max_size=6),
)
VALUES = st.floats(allow_nan=False, allow_infinity=False)


def in_settings(value: st.SearchStrategy) -> st.SearchStrategy:
    """Settings of one world, sorted by site."""
    table = st.dictionaries(NAMES, value, max_size=3)
    return table.map(lambda d: tuple(Setting(site, d[site]) for site in sorted(d)))


OUTCOMES = st.recursive(
    st.builds(Outcome, NAMES),
    lambda inner: st.builds(Outcome, NAMES, in_settings(st.one_of(VALUES, inner))),
    max_leaves=4,
)
NUMBERS = st.builds(Number, VALUES)


def arithmetic(leaf: st.SearchStrategy) -> st.SearchStrategy:
    """Sums and products of leaves and numbers."""
    return st.recursive(
        st.one_of(leaf, NUMBERS),
        lambda inner: st.builds(Arithmetic, st.sampled_from("+-*/"), inner, inner),
        max_leaves=4,
    )


COMPARISONS = st.builds(
    Comparison,
    arithmetic(OUTCOMES),
    st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
    arithmetic(OUTCOMES),
)
GIVEN = st.lists(COMPARISONS, max_size=2).map(tuple)
DO = in_settings(st.one_of(VALUES, OUTCOMES))
TERMS = st.one_of(
    st.builds(Probability, st.lists(COMPARISONS, min_size=1, max_size=3).map(tuple), GIVEN, DO),
    st.builds(Expectation, arithmetic(OUTCOMES), GIVEN, DO),
)
QUERIES = st.one_of(TERMS, st.builds(Arithmetic, st.sampled_from("+-*/"), arithmetic(TERMS), TERMS))


@settings(max_examples=150, deadline=None)
@given(QUERIES)
def test_what_is_written_is_read_back(query):
    assert parse(to_text(query)) == query


def test_readings_of_the_notation():
    y1 = Outcome("y", (Setting("x", 1.0),))
    is_1 = Comparison(y1, "=", Number(1.0))
    x, y = (Comparison(Outcome(n), "=", Number(0.0)) for n in "xy")
    assert parse("P(y[x=1] = 1 | x=0, y=0)") == Probability((is_1,), (x, y))
    z = Comparison(Outcome("z"), "=", Number(2.0))
    assert parse("E[y | do(x=1), z=2]") == Expectation(Outcome("y"), (z,), (Setting("x", 1.0),))
    nested = Setting("m", Outcome("m", (Setting("x", 0.0),)))
    assert parse("E[y[x=1, m=m[x=0]]]") == Expectation(Outcome("y", (nested, Setting("x", 1.0))))


def test_order_of_settings_and_space_do_not_matter():
    assert parse("E[y[x=1,m=2]]") == parse(" E [ y [ m = 2 , x = +1 ] ] ")


def test_precedence_and_associativity():
    one, two, three = Number(1.0), Number(2.0), Number(3.0)
    e = Expectation(Outcome("y"))
    assert parse("E[y] - 1 - 2") == Arithmetic("-", Arithmetic("-", e, one), two)
    assert parse("1 + E[y] * 2 / 3") == Arithmetic(
        "+", one, Arithmetic("/", Arithmetic("*", e, two), three)
    )
    assert parse("-E[y]") == Arithmetic("-", Number(0.0), e)


@pytest.mark.parametrize(
    ("text", "value"), [("-1", -1.0), ("1e-3", 1e-3), (".5", 0.5), ("2.", 2.0), ("-1.5E+2", -150.0)]
)
def test_numbers(text, value):
    assert parse(f"E[y[x={text}]]") == Expectation(Outcome("y", (Setting("x", value),)))
    assert parse(f"P(y = {text})") == Probability((Comparison(Outcome("y"), "=", Number(value)),))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("P(y=1", r"past the end"),
        ("E[y | z]", r"gives its site a value, as in z=1"),
        ("P(y == 1)", r"a single ="),
        ("P(do(x=1), y=1)", r"stands after the bar only, as in E\[y \| do\(x=1\)\]"),
        ("E[y[x=1, x=2]]", r"'x' is set twice"),
        ("P(y=1 | do(x=1), do(x=2))", r"'x' is set twice"),
        ("1 + 2", r"holds no P\(...\) or E\[...\]"),
        ("", r"expected P\( or E\["),
        ("P(y=1) P(x=1)", r"expected \+ or - or \* or / or the end"),
        ("E[my site]", r"goes in quotes"),
    ],
)
def test_errors_say_what_was_expected_and_give_an_example(text, message):
    with pytest.raises(cp.errors.QueryError, match=message):
        parse(text)


def test_the_caret_points_at_the_place():
    with pytest.raises(cp.errors.QueryError, match="character 5") as caught:
        parse("E[y $ 2]")
    lines = str(caught.value).splitlines()
    assert lines[2].index("^") - lines[1].index("E") == 4


def test_the_error_is_one_of_the_library_and_a_value_error():
    with pytest.raises(cp.CausalPPLError):
        parse("foo")
    with pytest.raises(ValueError, match="example"):
        parse("foo")
    with pytest.raises(cp.errors.QueryError, match="as text"):
        parse(3)
