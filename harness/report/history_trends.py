# SPDX-License-Identifier: GPL-2.0-or-later
"""What runs of many nights say together: what has changed, since when a scenario is bad, and which are flaky."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise

from harness.status import Status

Subject = tuple[str, str, str]
"""Scenario, kernel, host: verdicts of one subject are comparable from night to night."""


@dataclass(frozen=True, slots=True)
class NightRun:
    """One run.  ``began``: its start as in ISO 8601, local time; ``missing``: planned, and without a verdict."""

    run: str
    began: str
    host: str
    command: str
    exit_code: int
    seconds: float
    missing: int
    troubles: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class NightVerdict:
    """One verdict of a run.

    :ivar build: what the kernel was made from, or what it says of itself: equal for equal builds.
    :ivar folder: where its evidence is, or was.
    """

    run: str
    began: str
    scenario: str
    kernel: str
    host: str
    status: Status
    green: bool
    reason: str
    build: str
    folder: str

    @property
    def subject(self) -> Subject:
        """What the verdict is about."""
        return self.scenario, self.kernel, self.host


@dataclass(frozen=True, slots=True)
class VerdictChange:
    """A subject whose verdict of tonight is another than the last one before; ``was`` None: it is new."""

    was: NightVerdict | None
    now: NightVerdict


@dataclass(frozen=True, slots=True)
class BadStreak:
    """A subject that is bad now: its first bad verdict since it was green last, and that one, if it ever was."""

    first: NightVerdict
    last_green: NightVerdict | None
    now: NightVerdict
    verdicts: int


@dataclass(frozen=True, slots=True)
class Flaky:
    """A subject that was green and bad by turns on one build of its kernel."""

    now: NightVerdict
    bad: int
    verdicts: int

    @property
    def rate(self) -> float:
        return self.bad / self.verdicts


@dataclass(frozen=True, slots=True)
class Night:
    """The newest runs against everything before.

    :ivar runs: of tonight.
    :ivar bad: subjects that are bad now, longest first.
    :ivar gone: subjects that the last run with the same command had, and none of tonight.
    """

    runs: tuple[NightRun, ...]
    verdicts: tuple[NightVerdict, ...]
    changes: tuple[VerdictChange, ...]
    bad: tuple[BadStreak, ...]
    flaky: tuple[Flaky, ...]
    gone: tuple[NightVerdict, ...]

    @property
    def green(self) -> bool:
        """Every run of tonight ended green, and there was one."""
        return bool(self.runs) and all(run.exit_code == 0 for run in self.runs)


def night_of(runs: Sequence[NightRun], verdicts: Sequence[NightVerdict], tonight: Iterable[str]) -> Night:
    """What the runs named ``tonight`` say against those before.

    :param runs: in order of time, as are ``verdicts``.
    """
    names = set(tonight)
    histories = by_subject(verdicts)
    mine = tuple(run for run in runs if run.run in names)
    first = min((run.began for run in mine), default="")
    new = tuple(v for v in verdicts if v.run in names)
    present = {v.subject for v in new}
    before = {s: [v for v in vs if v.run not in names and v.began <= first] for s, vs in histories.items()}
    changes = []
    for subject in sorted(present):
        now = worst(v for v in histories[subject] if v.run in names)
        was = before[subject][-1] if before[subject] else None
        if was is None or was.status is not now.status:
            changes.append(VerdictChange(was, now))
    known = {subject: [v for v in vs if v.began <= max(run.began for run in mine)] for subject, vs in histories.items()}
    streaks = [bad_streak(known[subject]) for subject in sorted(present)]
    flaky = [flaky_of(known[subject]) for subject in sorted(present)]
    return Night(
        mine,
        new,
        tuple(changes),
        tuple(sorted((s for s in streaks if s is not None), key=lambda s: (s.first.began, s.now.subject))),
        tuple(sorted((f for f in flaky if f is not None), key=lambda f: (-f.rate, f.now.subject))),
        tuple(_gone(runs, verdicts, mine, present)),
    )


def by_subject(verdicts: Sequence[NightVerdict]) -> dict[Subject, list[NightVerdict]]:
    """The verdicts of each subject, in order of time."""
    ordered = sorted(verdicts, key=lambda v: v.subject)
    return {subject: sorted(vs, key=lambda v: v.began) for subject, vs in groupby(ordered, key=lambda v: v.subject)}


def worst(verdicts: Iterable[NightVerdict]) -> NightVerdict:
    """The verdict that decides among several of one night: the last bad one, else the last."""
    every = list(verdicts)
    return next((v for v in reversed(every) if not v.green), every[-1])


def bad_streak(history: Sequence[NightVerdict]) -> BadStreak | None:
    """Since when a subject is bad; None: it is not.  A run in which it was green and bad is a bad one."""
    if not history:
        return None
    last_run = history[-1].run
    now = worst(v for v in history if v.run == last_run)
    if now.green:
        return None
    last_green: NightVerdict | None = None
    streak: list[NightVerdict] = []
    for run, of_run in groupby(history, key=lambda v: v.run):
        verdict = worst(of_run)
        assert verdict.run == run
        if verdict.green:
            last_green, streak = verdict, []
        else:
            streak.append(verdict)
    return BadStreak(streak[0], last_green, now, len(streak))


def flaky_of(history: Sequence[NightVerdict]) -> Flaky | None:
    """Whether a subject is flaky on the build that ran last: green, then bad, then green again or the other way round,
    or both within one run.  One step from green to bad is no flakiness: something has changed, if not the kernel.
    """
    if not history:
        return None
    same = [v for v in history if v.build == history[-1].build]
    turns = sum(a.green is not b.green for a, b in pairwise(same))
    within = any(len({v.green for v in of_run}) == 2 for _, of_run in groupby(same, key=lambda v: v.run))
    if turns < 2 and not within:
        return None
    return Flaky(same[-1], sum(not v.green for v in same), len(same))


def _gone(
    runs: Sequence[NightRun],
    verdicts: Sequence[NightVerdict],
    mine: Sequence[NightRun],
    present: set[tuple[str, str, str]],
) -> Iterable[NightVerdict]:
    for run in mine:
        earlier = [r for r in runs if r.command == run.command and r.host == run.host and r.began < run.began]
        if earlier:
            yield from (v for v in verdicts if v.run == earlier[-1].run and v.subject not in present)
