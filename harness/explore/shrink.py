# SPDX-License-Identifier: GPL-2.0-or-later
"""The smallest scenario that still shows what a large one showed.

Greedy: of all that can be left out or made plainer the largest piece is tried first, and what still breaks the same
rule is gone on with, until nothing smaller does.  What is tried must be valid; how it is tried is the caller's affair.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

from harness.contract.words import Access
from harness.errors import ScenarioError
from harness.scenario.check import check
from harness.scenario.pages import lay_out, select
from harness.scenario.schema import Apf, GuestSpec, PageSet, Scenario, Step, Swap

T = TypeVar("T", GuestSpec, Apf, Swap)


def shrink(scenario: Scenario, still: Callable[[Scenario], bool], tries: int) -> Scenario:
    """The smallest scenario found with at most ``tries`` calls of ``still``, which says whether it still shows it."""
    left = tries
    tried: set[str] = set()
    while True:
        for smaller in smaller_ones(scenario):
            if repr(smaller) in tried:
                continue
            if not left:
                return scenario
            tried.add(repr(smaller))
            left -= 1
            if still(smaller):
                scenario = smaller
                break
        else:
            return scenario


def smaller_ones(s: Scenario) -> Iterator[Scenario]:
    """Valid scenarios that are smaller than this one by one change, the largest changes first."""
    made = chain(_fewer_steps(s), _fewer_vcpus(s), _split_touches(s), _smaller_sets(s), _plainer_ground(s),
                 _plainer_steps(s))  # fmt: skip
    return (each for each in map(_tidy, made) if each != s and next(check(each), None) is None)


def _fewer_steps(s: Scenario) -> Iterator[Scenario]:
    """Halves, quarters, ... single steps left out; then the timed entries."""
    size = len(s.steps) // 2
    while size:
        for at in range(0, len(s.steps), size):
            yield replace(s, steps=s.steps[:at] + s.steps[at + size :])
        size //= 2
    for at in range(len(s.timed)):
        yield replace(s, timed=s.timed[:at] + s.timed[at + 1 :])
    for at, step in enumerate(s.steps):
        for word in range(len(step.host)):
            yield _with_step(s, at, replace(step, host=step.host[:word] + step.host[word + 1 :]))


def _fewer_vcpus(s: Scenario) -> Iterator[Scenario]:
    """Without the highest vCPU that has a step; then all steps on the first one."""
    if s.guest.vcpus == 1:
        return
    used = sorted({step.vcpu for step in s.steps})
    number = {vcpu: n for n, vcpu in enumerate(used)}
    if len(used) < s.guest.vcpus:
        packed = tuple(replace(step, vcpu=number[step.vcpu]) for step in s.steps)
        yield replace(s, guest=replace(s.guest, vcpus=max(1, len(used))), steps=packed)
    for vcpu in range(1, s.guest.vcpus):
        moved = tuple(replace(step, vcpu=step.vcpu - (step.vcpu >= vcpu)) for step in s.steps)
        yield replace(s, guest=replace(s.guest, vcpus=s.guest.vcpus - 1), steps=moved)


def _split_touches(s: Scenario) -> Iterator[Scenario]:
    """A step that touches many pages: one page fewer at either end."""
    placed = lay_out(s.pages)
    for at, step in enumerate(s.steps):
        try:
            names = tuple(name for name, _ in select(placed, step.touch)) if step.touch else ()
        except ScenarioError:
            continue
        if len(names) > 1:
            half = len(names) // 2
            for part in dict.fromkeys((names[:half], names[half:], names[1:], names[:-1])):
                yield _with_step(s, at, replace(step, touch=part[0] if len(part) == 1 else part))


def _smaller_sets(s: Scenario) -> Iterator[Scenario]:
    """Sets without pages that are not named; fewer groups, shorter runs, plainer places."""
    for name in s.pages:
        rest = {key: value for key, value in s.pages.items() if key != name}
        yield replace(s, pages=rest)
    for name, pages in s.pages.items():
        for smaller in _smaller_set(pages):
            yield replace(s, pages={**s.pages, name: smaller})


def _smaller_set(p: PageSet) -> Iterator[PageSet]:
    for groups in dict.fromkeys((1, p.groups // 2, p.groups - 1)):
        if 0 < groups < p.groups:
            yield replace(p, groups=groups)
    for run in dict.fromkeys((1, p.run // 2, p.run - 1)):
        if 0 < run < p.run:
            yield replace(p, run=run)
    if p.offset != -1:
        yield replace(p, offset=-1)
    if p.groups == 1 and p.stride != PageSet(1).stride:
        yield replace(p, stride=PageSet(1).stride)


def _plainer_ground(s: Scenario) -> Iterator[Scenario]:
    for guest in _plainer(s.guest, GuestSpec(vcpus=s.guest.vcpus)):
        yield replace(s, guest=guest)
    for apf in _plainer(s.apf, Apf()):
        yield replace(s, apf=apf)
    for swap in _plainer(s.swap, Swap(kind=s.swap.kind)):
        yield replace(s, swap=swap)
    if s.memory.random_advice:
        yield replace(s, memory=replace(s.memory, random_advice=False))


def _plainer_steps(s: Scenario) -> Iterator[Scenario]:
    plain = Step(access=Access.READ)
    for at, step in enumerate(s.steps):
        for key in (
            "pause_us",
            "access",
            "shadow",
            "gif",
            "tpr",
            "in_service",
            "no_paging",
            "by",
            "interrupts",
            "cpl",
            "then",
        ):
            if getattr(step, key) != getattr(plain, key):
                changes: dict[str, Any] = {key: getattr(plain, key)}
                yield _with_step(s, at, replace(step, **changes))


def _plainer(part: T, plain: T) -> Iterator[T]:
    """The part with all of its fields, then with each of them, as in the plain one."""
    yield plain
    for field in dataclasses.fields(plain):
        if getattr(part, field.name) != getattr(plain, field.name):
            changes: dict[str, Any] = {field.name: getattr(plain, field.name)}
            yield replace(part, **changes)


def _with_step(s: Scenario, at: int, step: Step) -> Scenario:
    return replace(s, steps=(*s.steps[:at], step, *s.steps[at + 1 :]))


def _tidy(s: Scenario) -> Scenario:
    """Without page names of ``error`` that no set has any more, and steps ``after`` one that is gone."""
    sizes = {name: p.groups * p.run for name, p in s.pages.items()}
    known = tuple(name for name in s.swap.error if _exists(name, sizes))
    names = {step.name for step in s.steps}
    steps = tuple(step for step in s.steps if not step.after or step.after in names)
    if known != s.swap.error:
        s = replace(s, swap=replace(s.swap, error=known))
    return s if len(steps) == len(s.steps) else replace(s, steps=steps)


def _exists(page: str, sizes: dict[str, int]) -> bool:
    name, _, rest = page.partition("[")
    return name in sizes and rest[:-1].isdecimal() and int(rest[:-1]) < sizes[name]
