# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page is made of: a run's result, and what lies in the folder of each verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from harness.contract.plan import Plan
from harness.judge.comparison import Comparison
from harness.report.latency import Latencies
from harness.results import Key, RunResult


@dataclass(frozen=True, slots=True)
class VerdictFolder:
    """What belongs to one verdict besides itself.

    :ivar repeat: the command that repeats just this one.
    :ivar consoles: by name, the whole text; the page shows the end of it.
    :ivar timeline: an <svg> element made by report/timeline/svg.py; empty where there is no trace.
    :ivar commits: commits to look at, one line each; where a tree of the kernel is there.
    """

    plan: Plan | None = None
    repeat: str = ""
    consoles: Mapping[str, str] = field(default_factory=dict)
    timeline: str = ""
    timeline_notes: tuple[str, ...] = ()
    latencies: Latencies = field(default_factory=dict)
    commits: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PastVerdict:
    """The last verdict about a key before this run: the run's name, and the verdict's word."""

    run: str
    word: str


@dataclass(frozen=True, slots=True)
class PageData:
    """Everything that is on a page."""

    result: RunResult
    folders: Mapping[Key, VerdictFolder]
    past: Mapping[Key, PastVerdict] = field(default_factory=dict)
    comparisons: Sequence[Comparison] = ()
