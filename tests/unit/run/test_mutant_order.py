# SPDX-License-Identifier: GPL-2.0-or-later
"""The order in which scenarios are tried on a systematic mutant."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.results import Key
from harness.run.mutant_order import Reach, for_a_first_catch, for_another_catch
from harness.run.mutant_trials import Mutant, Trial, kind_of
from harness.status import Status
from tests.unit.rows import row_of

REACH = Reach(
    {
        "S1": frozenset({7}),
        "S2": frozenset({7, 9}),
        "S3": frozenset({7, 8, 9}),
        "S4": frozenset({7, 9, 10, 11, 12}),
        "S5": frozenset({8}),
    },
    {"S1": 3.0, "S2": 1.0, "S3": 9.0, "S4": 8.0, "S5": 0.5},
)


def point(number: int, function: str = "f") -> Mutant:
    return Mutant(f"{function}: x negated", number, "f.c:1", function, (), ("D05",))


FAMILY = tuple(point(n, "f" if n < 9 else "g") for n in range(7, 20))


def first(number: int, **seconds: float) -> tuple[str, ...]:
    reach = Reach(REACH.points, {**REACH.seconds, **seconds})
    return tuple(for_a_first_catch(FAMILY[number - 7], FAMILY, reach))


def trials(scenario: str, mutant: Mutant, named: int, green: int) -> Iterable[Trial]:
    key = Key(f"{scenario}@{mutant.number}", "k")
    yield from [Trial(mutant, scenario, row_of(key, Status.FAIL, "D05: owed"))] * named
    yield from [Trial(mutant, scenario, row_of(key, Status.PASS, ""))] * green


def test_what_knows_the_function_best_of_the_quick_then_of_all_then_what_comes_by_most() -> None:
    assert first(7) == ("S2", "S3", "S4", "S1")
    assert first(7, S3=1.5)[0] == "S3"
    assert first(7, S4=1.6)[0] == "S4"  # as many of the function as S2, and more at all
    assert first(8) == ("S5", "S3")
    assert first(19) == ()


@pytest.mark.parametrize(
    ("scenario", "kind"),
    [("S49", "S49"), ("S49R", "S49"), ("S107/cpu=host,en_flags=9", "S107"), ("GATE", "GATE"), ("x3-11-70", "x3-11-70")],
)
def test_scenarios_of_one_number_are_one_kind(scenario: str, kind: str) -> None:
    assert kind_of(scenario) == kind


def test_another_catch_is_sought_where_nearly_the_same_is_done() -> None:
    assert tuple(for_another_catch(point(7), ["S3"], REACH)) == ("S2", "S1", "S4")
    assert tuple(for_another_catch(point(7), ["S4"], REACH)) == ("S2", "S3", "S1")
    assert tuple(for_another_catch(point(7), ["S3", "S1"], REACH)) == ("S2", "S4")


def test_one_of_each_kind_before_the_second_of_any_and_none_of_the_kind_that_caught_it() -> None:
    reach = Reach(
        dict.fromkeys(("S1", "S1M", "S2", "S3", "S3/a=1"), frozenset({7})),
        {"S1": 1.0, "S1M": 1.0, "S2": 9.0, "S3": 1.0, "S3/a=1": 1.0},
    )
    assert tuple(for_another_catch(point(7), ["S3/a=1"], reach)) == ("S1", "S2", "S1M")
    assert tuple(for_another_catch(point(8), [], reach)) == ()


@given(
    one=st.frozensets(st.integers(0, 20)),
    other=st.frozensets(st.integers(0, 20)),
    third=st.frozensets(st.integers(0, 20)),
)
def test_how_alike_two_are_is_symmetric_and_most_with_itself(
    one: frozenset[int], other: frozenset[int], third: frozenset[int]
) -> None:
    reach = Reach({"a": one, "b": other, "c": third}, dict.fromkeys("abc", 1.0))
    assert 0.0 <= reach.alike("a", "b") == reach.alike("b", "a") <= 1.0
    assert reach.alike("a", "a") == bool(one)
    assert reach.alike("a", "nobody's") == 0.0
    far = 1 - reach.alike("a", "b"), 1 - reach.alike("b", "c")
    if one and other and third:
        assert 1 - reach.alike("a", "c") <= sum(far) + 1e-9  # Jaccard's distance is a metric
