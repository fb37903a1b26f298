# SPDX-License-Identifier: GPL-2.0-or-later
"""Two kernels, the same plan: where did they behave differently, and does the model say that they should?

Each side is judged against its own model first.  Here the two sides are laid beside each other: a difference that both
models predict is expected; one that no model predicts, or a predicted one that did not show, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from harness.contract.plan import Backing, Plan, SwapKind
from harness.judge.match import ItemRow
from harness.judge.verdict import Verdict
from harness.status import Status

_COUNTED = ("NPt", "NPh", "REP", "MAJ_V", "MIN_V", "PGMAJ", "PSWPIN", "BIO_V", "BIO_W", "MAJ_W")
"""Totals in which two kernels are compared: those that a run can show and that say what happened where."""

MIN_BLOCKED_MS = 20.0
"""Below this a difference of blocked time is the machine's, not the kernel's."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that differs.  ``expected``: the two models differ in it in the same way."""

    what: str
    a: str
    b: str
    expected: bool
    items: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """One scenario on two kernels.  ``green``: both sides passed, and the models predict every difference."""

    scenario: str
    title: str
    plan: Plan
    a: Verdict
    b: Verdict
    differences: tuple[Difference, ...]
    blocked_ms: tuple[float, float]

    @property
    def green(self) -> bool:
        passed = self.a.status is Status.PASS and self.b.status is Status.PASS
        return passed and all(d.expected for d in self.differences)


def compare(plan: Plan, a: Verdict, b: Verdict) -> Comparison:
    """Lay two verdicts of one plan beside each other."""
    blocked = tuple(round(sum(row.blocked_ms for row in v.items), 1) for v in (a, b))
    return Comparison(
        scenario=plan.scenario,
        title=plan.title,
        plan=plan,
        a=a,
        b=b,
        differences=(*_items(a, b), *_totals(a, b)),
        blocked_ms=(blocked[0], blocked[1]),
    )


def _items(a: Verdict, b: Verdict) -> Iterator[Difference]:
    """Differences of items, those that are alike gathered into one."""
    found: dict[tuple[str, str, str, bool], list[int]] = {}
    other = {row.index: row for row in b.items}
    for left in a.items:
        right = other.get(left.index)
        if right is None:
            continue
        for what, x, y in _aspects(left, right):
            found.setdefault((what, x, y, _same_change(left, right)), []).append(left.index)
    for (what, x, y, expected), indices in found.items():
        yield Difference(what, x, y, expected, tuple(indices))


def _aspects(a: ItemRow, b: ItemRow) -> Iterator[tuple[str, str, str]]:
    if _kind(a.seen) != _kind(b.seen):
        yield "outcome", a.seen, b.seen
    if a.issuer != b.issuer and (a.issuer or b.issuer):
        yield "read issued by", _who(a.issuer), _who(b.issuer)


def _kind(seen: str) -> str:
    """Without the number of repeats, which hangs on when the page became ready."""
    return ", ".join(dict.fromkeys(part.split("x ")[-1] for part in seen.split(", ")))


def _same_change(a: ItemRow, b: ItemRow) -> bool:
    """Both rows are as their own models say, so the difference between them is the models' own."""
    return a.ok and b.ok


def _who(issuer: str) -> str:
    return {"V": "vCPU thread", "W": "kworker", "": "nobody"}.get(issuer, issuer)


def _totals(a: Verdict, b: Verdict) -> Iterator[Difference]:
    other = {row.name: row for row in b.totals}
    for left in a.totals:
        right = other.get(left.name)
        if left.name not in _COUNTED or right is None or left.seen is None or right.seen is None:
            continue
        if left.seen != right.seen:
            yield Difference(left.name, str(left.seen), str(right.seen), left.ok and right.ok)


@dataclass(frozen=True, slots=True)
class Known:
    """A known observable difference between noio and nowait (behaviour.md, end of section F)."""

    id: str
    sentence: str
    shows: Callable[[Comparison], bool]


def _count(v: Verdict, name: str) -> int:
    return next((row.seen or 0 for row in v.totals if row.name == name), 0)


def _tokens_part(c: Comparison) -> bool:
    return _count(c.a, "NP") != _count(c.b, "NP")


def _outcomes(c: Comparison) -> set[frozenset[str]]:
    return {frozenset((_kind(d.a), _kind(d.b))) for d in c.differences if d.what == "outcome"}


def _issuers_part(c: Comparison) -> bool:
    return any(d.what == "read issued by" and {d.a, d.b} == {"vCPU thread", "kworker"} for d in c.differences)


def _has_twice(plan: Plan) -> bool:
    touched = [item.gpa for item in plan.items if item.gpa]
    return len(touched) != len(set(touched))


KNOWN = (
    Known("X1", "who submits the read of a missing page: kworker (noio), vCPU thread (nowait)", _issuers_part),
    Known(
        "X2",
        "page-cluster 0: asynchronous (noio), synchronous in the vCPU thread (nowait up to 6.1)",
        lambda c: c.plan.swap.page_cluster == 0 and _is_swap(c, Backing.ANON) and _tokens_part(c),
    ),
    Known(
        "X3",
        "isolated touches: asynchronous each (noio), only while the window is open (nowait up to 6.1)",
        lambda c: (
            c.plan.swap.page_cluster > 0 and _is_swap(c, Backing.ANON) and not _has_twice(c.plan) and _tokens_part(c)
        ),
    ),
    Known("X4", "zram: asynchronous (noio), synchronous (nowait)", lambda c: _is_zram(c) and _tokens_part(c)),
    Known(
        "X6",
        "memfd: asynchronous (noio with the shmem hook), synchronous (nowait)",
        lambda c: c.plan.memory.backing is Backing.MEMFD and _tokens_part(c),
    ),
    Known(
        "X7",
        "file without read-ahead: asynchronous (noio), synchronous (nowait)",
        lambda c: c.plan.memory.random_advice and _tokens_part(c),
    ),
    Known(
        "X8",
        "neighbour of a page in flight: blocks the vCPU thread (noio), asynchronous (nowait)",
        lambda c: not _has_twice(c.plan) and frozenset(("block", "token")) in _outcomes(c),
    ),
    Known(
        "X9",
        "the same page again: blocks the vCPU thread (noio), repeated fault and halt (nowait)",
        lambda c: _has_twice(c.plan) and frozenset(("block", "repeated")) in _outcomes(c),
    ),
    Known(
        "X10",
        "major faults: the vCPU thread's stay 0 where the kworker's move (noio)",
        lambda c: (_count(c.a, "MAJ_V") == 0) != (_count(c.b, "MAJ_V") == 0) and _issuers_part(c),
    ),
)


def _is_swap(c: Comparison, backing: Backing) -> bool:
    return c.plan.memory.backing is backing and c.plan.swap.kind is SwapKind.DELAY


def _is_zram(c: Comparison) -> bool:
    return c.plan.swap.kind is SwapKind.ZRAM


def observed(comparisons: tuple[Comparison, ...]) -> tuple[tuple[Known, tuple[str, ...]], ...]:
    """Each known difference with the scenarios in which it was seen."""
    return tuple((known, tuple(c.scenario for c in comparisons if known.shows(c))) for known in KNOWN)
