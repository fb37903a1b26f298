# SPDX-License-Identifier: GPL-2.0-or-later
"""Every combination of answers comes up, once, and no more than the bound."""

from __future__ import annotations

from itertools import product

from hypothesis import given
from hypothesis import strategies as st

from harness.model.simulation.choices import Choices, explore


@given(st.lists(st.integers(1, 4), max_size=5))
def test_all_combinations_once(options: list[int]) -> None:
    def ask(choices: Choices) -> tuple[int, ...]:
        return tuple(choices.ask(n, "") for n in options)

    seen = [run.result for run in explore(ask, 5000)]
    assert sorted(seen) == sorted(product(*(range(n) for n in options)))


def test_what_is_asked_may_depend_on_the_answers() -> None:
    def ask(choices: Choices) -> str:
        first = choices.ask(2, "first")
        return f"{first}{choices.ask(3, 'second') if first else ''}"

    assert [run.result for run in explore(ask, 100)] == ["0", "10", "11", "12"]


def test_the_bound_holds() -> None:
    assert len(list(explore(lambda choices: [choices.ask(2, "") for _ in range(30)], 7))) == 7


def test_a_question_with_one_answer_is_none() -> None:
    choices = Choices()
    assert choices.ask(1, "") == 0
    assert not choices.taken
    assert choices.next_script() is None
