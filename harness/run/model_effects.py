# SPDX-License-Identifier: GPL-2.0-or-later
"""Which difference between two kernel models makes a plan come out otherwise."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import fields, replace

from harness.contract.plan import GuestKind, Plan
from harness.errors import ModelError
from harness.model.kernels import KernelModel
from harness.model.simulation.situation import Prediction
from harness.prediction import predict, predict_cases

_IDENTITY = {"name", "release"}


def differing(a: KernelModel, b: KernelModel) -> tuple[str, ...]:
    """The fields in which two models differ, but for what they are called."""
    return tuple(f.name for f in fields(a) if f.name not in _IDENTITY and getattr(a, f.name) != getattr(b, f.name))


def shown_by(plan: Plan, a: KernelModel, b: KernelModel) -> tuple[str, ...]:
    """The differences of ``b`` that alone, put into ``a`` or taken from ``b``, change the prediction of this plan.

    All differences, when only several together change it; none, when the plan does not tell the two kernels apart.
    """
    names = differing(a, b)
    (first, asked_of_a), (last, asked_of_b) = _answer_and_asked(plan, a), _answer_and_asked(plan, b)
    if not names or first == last:
        return ()
    # Names of functions follow the release, and older ones lack some: behaviour does not hang on it.
    named_as = max(a.release, b.release)
    put = replace(a, release=named_as)
    taken = replace(b, release=named_as)
    alone = tuple(
        name for name in names
        if (name in asked_of_a and _answer(plan, replace(put, **{name: getattr(b, name)})) != first)
        or (name in asked_of_b and _answer(plan, replace(taken, **{name: getattr(a, name)})) != last)
    )  # fmt: skip
    return alone or names


@functools.lru_cache(maxsize=1024)
def _answer_and_asked(plan: Plan, kernel: KernelModel) -> tuple[object, frozenset[str]]:
    """The answer, and the fields of the model that were asked for on the way: no other can change it."""
    asked: set[str] = set()

    class Watched(KernelModel):
        __slots__ = ()

        def __getattribute__(self, name: str) -> object:
            asked.add(name)
            return super().__getattribute__(name)

    answer = _answer(plan, Watched(**{f.name: getattr(kernel, f.name) for f in fields(kernel)}))
    return answer, frozenset(asked)


def _answer(plan: Plan, kernel: KernelModel) -> object:
    """What a run of the plan is held against, to be compared; the reason where the model has no answer."""
    try:
        if plan.guest.kind is GuestKind.HOST_PROGRAM:
            return tuple((each.case, each.outcome, each.faults) for each in predict_cases(plan, kernel))
        return tuple(_judged(predict(plan, kernel)))
    except ModelError as error:
        return error.message


def _judged(prediction: Prediction) -> Iterator[object]:
    """Outcomes, counts, events and findings; not the reasons, and not when something happened."""
    for item in prediction.items:
        counts = {name: replace(getattr(item, name), reason="") for name in ("faults", "repeats", "halts")}
        yield replace(item, rule="", why="", **counts)
    yield {name: (count.low, count.high) for name, count in prediction.totals.items()}
    yield prediction.ends
    yield prediction.known_faults
    yield tuple((event.kind, event.vcpu, event.token, event.gpa, event.value) for event in prediction.events)
