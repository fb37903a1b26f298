# SPDX-License-Identifier: GPL-2.0-or-later
"""Two kernels, the same plan: where did they behave differently, and does the model say that they should?

Each side was judged against its own model.  Here the two verdicts are laid beside each other: a difference that both
models predict is expected; one that no model predicts, or a predicted one that did not show, is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.contract.plan import Plan
from harness.judge.verdict_types import Reader, Verdict
from harness.model.known_differences import KnownDifference, ObservedDifference, known_differences
from harness.model.outcomes import Outcome
from harness.status import Status

_COUNTED = ("NPt", "NPh", "REP", "MAJ_V", "MIN_V", "PGMAJ", "PSWPIN", "BIO_V", "BIO_W", "MAJ_W")
"""Totals in which two kernels are compared: those that a run can show and that say what happened where."""


@dataclass(frozen=True, slots=True)
class OutcomeDifference:
    """Touches with different outcomes.

    :ivar a: the outcomes on the first kernel, each once, in the order in which they came; ``b``: on the second.
    :ivar expected: both rows are as their own models say, so that the difference between them is the models' own.
    :ivar items: the touches that differ in just this way.
    """

    a: tuple[Outcome, ...]
    b: tuple[Outcome, ...]
    expected: bool
    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class ReaderDifference:
    """Touches whose read somebody else submitted.  Fields as those of OutcomeDifference."""

    a: Reader
    b: Reader
    expected: bool
    items: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class TotalDifference:
    """A count that differs."""

    name: str
    a: int
    b: int
    expected: bool


Difference = OutcomeDifference | ReaderDifference | TotalDifference


@dataclass(frozen=True, slots=True)
class Comparison:
    """One scenario on two kernels.

    :ivar blocked_ns: how long the vCPU threads were blocked in the planned touches, on either side.  No model says how
        long that is, so it is shown and never judged.
    """

    scenario: str
    title: str
    plan: Plan
    a: Verdict
    b: Verdict
    differences: tuple[Difference, ...]
    blocked_ns: tuple[int, int]

    @property
    def differs(self) -> bool:
        """Something was other than on the first kernel: a count, an outcome, a known fault that one of them shows."""
        return bool(self.differences) or self.a.word != self.b.word

    @property
    def green(self) -> bool:
        """Both sides did what their models say, and these predict every difference.  Of a host that cannot do the
        scenario nothing differs; whether that is allowed, the run itself says."""
        passed = all(s.as_predicted or s is Status.UNSUPPORTED for s in (self.a.status, self.b.status))
        return passed and all(d.expected for d in self.differences)


def compare(plan: Plan, a: Verdict, b: Verdict) -> Comparison:
    """Lay two verdicts of one plan beside each other."""
    return Comparison(
        scenario=plan.scenario,
        title=plan.title,
        plan=plan,
        a=a,
        b=b,
        differences=(*_outcomes(a, b), *_readers(a, b), *_totals(a, b)),
        blocked_ns=(_blocked(a), _blocked(b)),
    )


def _blocked(verdict: Verdict) -> int:
    return sum(row.blocked_ns for row in verdict.items)


def _outcomes(a: Verdict, b: Verdict) -> Iterator[OutcomeDifference]:
    """Differences of outcomes, those that are alike gathered into one."""
    found: dict[tuple[tuple[Outcome, ...], tuple[Outcome, ...], bool], list[int]] = {}
    other = {row.index: row for row in b.items}
    for left in a.items:
        right = other.get(left.index)
        if right is not None and left.kinds != right.kinds:
            found.setdefault((left.kinds, right.kinds, left.ok and right.ok), []).append(left.index)
    for (x, y, expected), items in found.items():
        yield OutcomeDifference(x, y, expected, tuple(items))


def _readers(a: Verdict, b: Verdict) -> Iterator[ReaderDifference]:
    found: dict[tuple[Reader, Reader, bool], list[int]] = {}
    other = {row.index: row for row in b.items}
    for left in a.items:
        right = other.get(left.index)
        if right is not None and left.reader is not right.reader:
            found.setdefault((left.reader, right.reader, left.ok and right.ok), []).append(left.index)
    for (x, y, expected), items in found.items():
        yield ReaderDifference(x, y, expected, tuple(items))


def _totals(a: Verdict, b: Verdict) -> Iterator[TotalDifference]:
    other = {row.name: row for row in b.totals}
    for left in a.totals:
        right = other.get(left.name)
        if left.name not in _COUNTED or right is None or left.seen is None or right.seen is None:
            continue
        if left.seen != right.seen:
            yield TotalDifference(left.name, left.seen, right.seen, left.ok and right.ok)


def observed_difference(c: Comparison) -> ObservedDifference:
    """A comparison as the table of known differences looks at it."""
    changed = [d for d in c.differences if isinstance(d, OutcomeDifference)]
    readers = {frozenset((d.a, d.b)) for d in c.differences if isinstance(d, ReaderDifference)}
    return ObservedDifference(
        plan=c.plan,
        np=(c.a.total("NP") or 0, c.b.total("NP") or 0),
        majors=(c.a.total("MAJ_V") or 0, c.b.total("MAJ_V") or 0),
        outcomes=frozenset(frozenset((d.a[0], d.b[0])) for d in changed),
        readers_part=frozenset((Reader.VCPU, Reader.WORKER)) in readers,
    )


def known_seen(comparisons: Sequence[Comparison]) -> tuple[tuple[KnownDifference, tuple[str, ...]], ...]:
    """Each known difference between the variants of the two kernels, with the scenarios in which it was seen.

    Empty where nothing is known of two kernels of these variants.
    """
    known = {k.id: k for c in comparisons for k in known_differences(c.a.variant, c.b.variant)}
    return tuple((k, tuple(c.scenario for c in comparisons if _shows(k, c))) for k in known.values())


def _shows(known: KnownDifference, c: Comparison) -> bool:
    return known in known_differences(c.a.variant, c.b.variant) and known.shows(observed_difference(c))
