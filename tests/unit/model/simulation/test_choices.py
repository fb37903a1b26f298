# SPDX-License-Identifier: GPL-2.0-or-later
"""Every combination of answers comes up, once, and no more than the bound."""

from __future__ import annotations

from itertools import islice, product

from hypothesis import given
from hypothesis import strategies as st

from harness.model.simulation.choices import Bounds, Choices, Distance, explore


@given(st.lists(st.integers(1, 4), max_size=4))
def test_all_combinations_once(options: list[int]) -> None:
    def ask(choices: Choices) -> tuple[int, ...]:
        return tuple(choices.ask(n, "") for n in options)

    seen = [run.result for run in explore(ask, Bounds(5000))]
    assert sorted(seen) == sorted(product(*(range(n) for n in options)))


def test_what_is_asked_may_depend_on_the_answers() -> None:
    def ask(choices: Choices) -> str:
        first = choices.ask(2, "first")
        return f"{first}{choices.ask(3, 'second') if first else ''}"

    assert [run.result for run in explore(ask, Bounds(100))] == ["0", "10", "11", "12"]


def test_the_bound_holds() -> None:
    assert len(list(explore(lambda choices: [choices.ask(2, "") for _ in range(30)], Bounds(7)))) == 7


def test_of_a_time_the_moment_before_the_parting_of_the_last_one_is_tried_soon() -> None:
    """The time of what was seen is between 730 and 740, and a run is given up where its own comes too early or late."""

    def ask(choices: Choices) -> int:
        choices.ask(2, "something else", 5)
        return choices.moment(range(0, 10000, 10), "when", 6)

    def distance(moment: int) -> Distance:
        return Distance(None, frozenset({6}), moment + 5 if moment < 730 else 735)

    assert [run.result for run in explore(ask, Bounds(3), distance)] == [0, 9990, 730]


def test_a_question_with_one_answer_is_none() -> None:
    choices = Choices()
    assert choices.ask(1, "") == 0
    assert not choices.taken


@given(st.lists(st.integers(2, 3), min_size=2, max_size=12), st.data())
def test_one_wrong_answer_is_found_before_two_are_changed(options: list[int], data: st.DataObject) -> None:
    """Wherever it was asked: depth first an early question would come last."""
    wrong = data.draw(st.integers(0, len(options) - 1))
    wanted = [0] * len(options)
    wanted[wrong] = data.draw(st.integers(1, options[wrong] - 1))

    def ask(choices: Choices) -> list[int]:
        return [choices.ask(n, "") for n in options]

    def distance(answers: list[int]) -> Distance:
        return Distance(sum(a != w for a, w in zip(answers, wanted, strict=True)))

    results = [run.result for run in explore(ask, Bounds(1 + sum(n - 1 for n in options)), distance)]
    assert wanted in results


@given(st.lists(st.integers(1, 3), max_size=5))
def test_all_combinations_come_once_whatever_is_told(options: list[int]) -> None:
    def ask(choices: Choices) -> tuple[int, ...]:
        return tuple(choices.ask(n, "") for n in options)

    seen = [run.result for run in explore(ask, Bounds(5000), _told)]
    assert sorted(seen) == sorted(product(*(range(n) for n in options)))


def _told(answers: tuple[int, ...]) -> Distance:
    return Distance(sum(answers) % 3 or None)


@given(st.integers(2, 20), st.integers(2, 9), st.data())
def test_what_is_asked_about_a_page_that_is_wrong_is_changed_first(
    questions: int, options: int, data: st.DataObject
) -> None:
    """And one answer of each such question before a second of any."""
    wrong = sorted(data.draw(st.sets(st.integers(0, questions - 1), min_size=1, max_size=3)))

    def ask(choices: Choices) -> list[int]:
        return [choices.ask(options, "", page) for page in range(questions)]

    def distance(answers: list[int]) -> Distance:
        shown = frozenset(page for page in wrong if answers[page] != options - 1)
        return Distance(2 * len(shown), shown)

    # by turns of three, one is what has waited longest
    tries = [run.result for run in explore(ask, Bounds(1 + 3 * sum(range(1, len(wrong) + 1))), distance)]
    assert [options - 1 if page in wrong else 0 for page in range(questions)] in tries


@given(st.lists(st.integers(2, 5), min_size=1, max_size=40), st.booleans(), st.data())
def test_one_wrong_answer_is_found_whatever_is_told(options: list[int], ends: bool, data: st.DataObject) -> None:
    """Though the search has been given up long ago, and its distances tell nothing."""
    wrong = data.draw(st.integers(0, len(options) - 1))
    answer = data.draw(st.integers(1, options[wrong] - 1))

    def ask(choices: Choices) -> dict[int, int]:
        return {n: taken for n, of in enumerate(options) if (taken := choices.ask(of, "", n))}

    bounds = Bounds(10, vain=3, singles=sum(n - 1 for n in options))
    results = [run.result for run in explore(ask, bounds, lambda _: Distance(5 if ends else None))]
    assert {wrong: answer} in results and len(results) <= bounds.runs + bounds.singles


@given(st.lists(st.integers(2, 4), min_size=2, max_size=6), st.data())
def test_two_wrong_answers_are_found_at_last(options: list[int], data: st.DataObject) -> None:
    """Though the distances tell nothing, as of pages that several threads read at once: pairs come behind singles."""
    first, second = sorted(data.draw(st.permutations(range(len(options))))[:2])
    wanted = {n: data.draw(st.integers(1, options[n] - 1)) for n in (first, second)}

    def ask(choices: Choices) -> dict[int, int]:
        return {n: taken for n, of in enumerate(options) if (taken := choices.ask(of, "", n))}

    bounds = Bounds(2, vain=1, singles=30, deep=5000)
    assert wanted in [run.result for run in explore(ask, bounds, lambda _: Distance(5))]
    assert wanted not in [run.result for run in explore(ask, bounds, lambda _: Distance(5), lambda: True)]


def test_a_search_that_gets_nearer_goes_on() -> None:
    """The third right answer is asked for only when the first two are given, and neither is found but one by one."""

    def ask(choices: Choices) -> int:
        given = [choices.ask(2, "", n) for n in range(30)]
        return given[20] + (choices.ask(2, "then") if given[20] else 0)

    runs = list(explore(ask, Bounds(6, vain=3, singles=30), lambda right: Distance(2 - right)))
    assert max(run.result for run in runs) == 2


def test_what_is_settled_anyway_is_not_searched_for() -> None:
    asked: list[int] = []

    def settled() -> bool:
        asked.append(1)
        return True

    runs = explore(lambda c: [c.ask(2, "", n) for n in range(30)], Bounds(6, singles=30), settled=settled)
    assert len(list(runs)) == 6 and asked == [1]


def test_what_was_asked_before_a_run_parted_is_changed_first() -> None:
    """Of ten questions four were asked when it parted, and it went on for long: no answer behind that may mend it."""

    def ten(choices: Choices) -> list[int]:
        return [choices.ask(3, f"question {n}") for n in range(10)]

    def parted(_: list[int]) -> Distance:
        return Distance(None, frozenset(), 100, 10_000, 4)

    runs = list(islice(explore(ten, Bounds(9), parted), 9))
    assert [run.result for run in runs[1:]] == [
        [answer if n == at else 0 for n in range(10)] for at in (3, 2, 1, 0) for answer in (1, 2)
    ]
