# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdict as data: what the judge found of one scenario, whole, for everybody who asks later.

It is carried as it is into the run's results, into verdict.json, into comparisons, bisections, mutants and reports:
nobody judges a second time, and nobody reads a rendered text back.  docs/formats/verdict.md describes the file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import groupby
from typing import Protocol

from harness.contract.plan import Access, from_json, to_json
from harness.errors import UsageError
from harness.model.kernels import Variant
from harness.model.outcomes import Count, Outcome
from harness.status import Status

VERDICT_FORMAT = 1
"""The number of verdict.json's format; it changes when a reader of the old one would misread the new one."""

WAITED = (Outcome.SYNC, Outcome.BLOCK)
"""Outcomes in which the vCPU thread waited for a read: the column "sync"."""

MAPPED = (Outcome.FAST, Outcome.MINOR, Outcome.NONE)
"""Outcomes in which the page was there: the column "mapped"."""

OFFERED = "value:cpuid"
"""Name of a finding about what the guest is offered: that was so before it did anything."""


class Stage(StrEnum):
    """How far a scenario came, and so who had the last word about it."""

    SETUP = "setup"  # its kernel, an image or its plan could not be made
    BOOT = "boot"  # no host came up
    PERFORM = "perform"  # host or agent ended it before there was evidence of the guest's program
    JUDGE = "judge"  # the evidence was held against the model


class Reader(StrEnum):
    """Who submitted the read of a page."""

    VCPU = "V"  # the vCPU thread itself
    WORKER = "W"  # a kworker, which works for async_pf
    OTHER = "other"  # another thread of the VMM
    NOBODY = ""  # no read was seen, or none was due


@dataclass(frozen=True, slots=True)
class Finding:
    """One way in which prediction and evidence part.

    :ivar rule: "D01".. of the protocol, or "item", "value", "total", "unexplained", "guest-log", "ending", "console",
        "panic" (the guest's last trap), "stopped" (a vCPU that never ran again).
    :ivar item: index of the plan's item, -1 when it is about none.
    :ivar line: line of trace/events.txt that shows it, 0 when none does.
    :ivar soft: worth a look, and never a FAIL by itself.
    :ivar consequence: of what is told before it: something still owed, or not at its end, when all was over.
    :ivar about: what of it, where a rule speaks of several things: "gp" or "outcome" of an item, the name of a total.
    """

    rule: str
    message: str
    item: int = -1
    line: int = 0
    soft: bool = False
    consequence: bool = False
    about: str = ""

    @property
    def name(self) -> str:
        """ "D05", "item:gp", "total:NPt": the rule, and what of it."""
        return f"{self.rule}:{self.about}" if self.about else self.rule


@dataclass(frozen=True, slots=True)
class ItemRow:
    """One touch of the plan: what was predicted and what was seen.

    :ivar page: name of the page in the plan, "p[3]".
    :ivar predicted: legal outcomes of the first fault, the one that the model expects first.
    :ivar repeats: predicted number of repeated faults.
    :ivar seen: outcomes of the faults that were seen, in order; empty when the access did not fault.
    :ivar reader: who submitted the read of the page, as seen.
    :ivar blocked_ns: how long the vCPU thread was off its CPU and not runnable in these faults.
    :ivar why: the model's reason for the prediction.
    """

    index: int
    page: str
    access: Access
    cpl: int
    interrupts: bool
    shadow: bool
    predicted: tuple[Outcome, ...]
    repeats: Count
    seen: tuple[Outcome, ...]
    reader: Reader
    ok: bool
    blocked_ns: int
    why: str = ""

    @property
    def first(self) -> Outcome:
        """The outcome that was seen first; NONE when there was no fault."""
        return self.seen[0] if self.seen else Outcome.NONE

    @property
    def kinds(self) -> tuple[Outcome, ...]:
        """The outcomes seen, each once: how often one repeats depends on when the page became ready."""
        return tuple(dict.fromkeys(self.seen)) or (Outcome.NONE,)


@dataclass(frozen=True, slots=True)
class TotalRow:
    """A count over the whole run.  ``seen`` is None when it could not be observed: then it has no verdict."""

    name: str
    predicted: Count
    seen: int | None
    ok: bool


@dataclass(frozen=True, slots=True)
class UncheckedRule:
    """A rule of the protocol that this capture cannot be held against, and why."""

    rule: str
    why: str


@dataclass(frozen=True, slots=True)
class KnownFaultRow:
    """A fault of kernels as they are shipped (docs/findings.md) that had to do with this run.

    :ivar id: "F1".
    :ivar predicted: this kernel is described as having it, and it had to show here.
    :ivar shown: the kernel did what the fault does.
    """

    id: str
    predicted: bool
    shown: bool


@dataclass(frozen=True, slots=True)
class TimelineRow:
    """A line of the trace near the first divergence.

    :ivar t_ns: trace clock.
    :ivar vcpu: whose thread it was, -1 when it was no vCPU's.
    :ivar marked: this line shows the divergence.
    """

    t_ns: int
    vcpu: int
    worker: bool
    tid: int
    text: str
    marked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What is known of one scenario on one kernel.

    :ivar model: name of the model that judged, "nowait-6.1"; empty when none did.
    :ivar variant: that model's variant, or that of the kernel as it was asked for; None when neither is known.
    :ivar reason: one line: the first divergence, or why there is no judgement; empty for a plain PASS.
    :ivar findings: the cause before its consequences, then by where they show in the trace (judge/blame.py).
    :ivar columns: the cells of the table of a run: tokens, halts, sync, mapped.
    :ivar hints: violations of soft rules.
    :ivar notes: what the model says about its own prediction.
    :ivar retries: why each earlier attempt at this scenario did not count.
    :ivar known_faults: the findings about shipped kernels that this run is about; ``status`` is FINDING where all is as
        the model says and one of them shows.
    :ivar log: raw text that belongs to the reason: the console's last lines, a traceback.
    :ivar taints: the host must not be used again.
    """

    format: int = VERDICT_FORMAT
    scenario: str
    status: Status
    stage: Stage = Stage.JUDGE
    reason: str = ""
    model: str = ""
    variant: Variant | None = None
    findings: tuple[Finding, ...] = ()
    items: tuple[ItemRow, ...] = ()
    totals: tuple[TotalRow, ...] = ()
    columns: tuple[TotalRow, ...] = ()
    hints: tuple[Finding, ...] = ()
    unchecked: tuple[UncheckedRule, ...] = ()
    timeline: tuple[TimelineRow, ...] = ()
    notes: tuple[str, ...] = ()
    retries: tuple[str, ...] = ()
    log: str = ""
    known_faults: tuple[KnownFaultRow, ...] = ()
    taints: bool = False

    def total(self, name: str) -> int | None:
        """The total of this name as seen; None when it was not observed."""
        return next((row.seen for row in self.totals if row.name == name), None)

    @property
    def shown_faults(self) -> tuple[str, ...]:
        """The ids of the known faults that the kernel showed, sorted: which was seen first differs from run to run."""
        return tuple(sorted(row.id for row in self.known_faults if row.shown))

    @property
    def judged_by(self) -> str:
        """Variant and fixes ("nowait+F1") of what judged, for judging again; empty when it is not known."""
        return "+".join((self.variant, *self.model.split("+")[1:])) if self.variant else ""

    @property
    def word(self) -> str:
        """The status for people: a FINDING with its name."""
        return " ".join((self.status, *self.shown_faults)) if self.status is Status.FINDING else self.status.value

    def to_json(self) -> str:
        """The text of verdict.json."""
        return to_json(self)

    @staticmethod
    def from_json(text: str) -> Verdict:
        """The inverse of to_json.

        :raise UsageError: not a verdict, or one of another format; the message names the key.
        """
        try:
            raw = json.loads(text)
        except ValueError as exc:
            raise UsageError(f"not a verdict: not JSON: {exc}") from exc
        found = raw.get("format") if isinstance(raw, dict) else None
        if found != VERDICT_FORMAT:
            raise UsageError(f"not a verdict of format {VERDICT_FORMAT}: its format is {found!r}")
        return from_json(Verdict, text)


class Touch(Protocol):
    """What an item of a plan and its row have in common."""

    @property
    def access(self) -> Access: ...
    @property
    def page(self) -> str: ...
    @property
    def cpl(self) -> int: ...
    @property
    def interrupts(self) -> bool: ...
    @property
    def shadow(self) -> bool: ...


def touch_words(touch: Touch) -> str:
    """ "read p[0] CPL0 IF=0": the access as messages and tables name it; user mode with interrupts on goes unsaid."""
    state = "" if touch.cpl == 3 and touch.interrupts else f" CPL{touch.cpl} IF={int(touch.interrupts)}"
    return f"{touch.access} {touch.page}{state}{' after STI' if touch.shadow else ''}"


def outcome_words(outcomes: Sequence[Outcome]) -> str:
    """ "token, 2x repeated": outcomes in order, runs of the same one counted; no outcome is "no-fault"."""
    runs = [(kind, len(list(same))) for kind, same in groupby(outcomes or (Outcome.NONE,))]
    return ", ".join(kind if n == 1 else f"{n}x {kind}" for kind, n in runs)


def reader_words(reader: Reader) -> str:
    """Who read, for messages and tables."""
    match reader:
        case Reader.VCPU:
            return "the vCPU thread"
        case Reader.WORKER:
            return "a kworker"
        case Reader.OTHER:
            return "another thread"
        case Reader.NOBODY:
            return "nobody"


def thread_words(vcpu: int, worker: bool, tid: int) -> str:
    """Whose thread it was."""
    if vcpu >= 0:
        return f"vCPU {vcpu}"
    return "kworker" if worker else f"tid {tid}"
