# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture -> a verdict: the one place where PASS, FINDING, FAIL, INCONCLUSIVE, UNSUPPORTED, ERROR are told apart."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from typing import assert_never

from harness.contract.capture import RunEnd
from harness.contract.plan import GuestKind, Op, PageStart, Plan, starts_anew
from harness.contract.words import Backing, EndStatus
from harness.errors import CaptureDamaged, ModelError
from harness.evidence.decode import Evidence, decode, read_end, read_plan
from harness.judge.agent_late import agent_late
from harness.judge.blame import (
    END_WORDS,
    bounded,
    ending,
    first_words,
    in_order,
    log_is_full,
    neither_sleeps_nor_enters,
    timeline,
    titles,
    with_full_logs,
)
from harness.judge.fault_shown import in_light_of_known_faults, run_with
from harness.judge.host_left import with_its_host
from harness.judge.host_program_verdict import judge_program
from harness.judge.let_go_late import FORESEEN, IN_VAIN, foreseen, let_go_late
from harness.judge.lockstep import predictions, races_unseen
from harness.judge.log_cut import within_the_trace
from harness.judge.lost_events import with_lost_events
from harness.judge.machine_trouble import by_machine
from harness.judge.match import match_items, match_totals
from harness.judge.match_linux import match_linux
from harness.judge.offered_features import offered_findings
from harness.judge.preconditions import problems
from harness.judge.protocol_check import Checked
from harness.judge.recorded_fields import field_findings, token_findings, written_findings
from harness.judge.rules_context import KNOW_A_PREDICTION, NOTHING, Expected, places
from harness.judge.seen_once import SeenOnce
from harness.judge.unexplained import unexplained
from harness.judge.verdict_types import (
    MAPPED,
    OFFERED,
    WAITED,
    Finding,
    ItemRow,
    KnownFaultRow,
    Stage,
    TotalRow,
    Verdict,
)
from harness.model.events import Kind
from harness.model.kernels import KernelModel
from harness.model.outcomes import Count, Outcome
from harness.model.protocol.rules import RULES
from harness.model.simulation.choices import Distance
from harness.model.simulation.program_order import Move, touches_of, undecided
from harness.model.simulation.races import retires
from harness.model.simulation.simulate import Followed
from harness.model.simulation.situation import Prediction
from harness.prediction import ORDERS, predict
from harness.status import Status


@dataclass(frozen=True, slots=True)
class JudgedCapture:
    """A verdict with what it was made of, for whoever draws it.

    :ivar evidence: None where the capture could not be decoded, or the run never came to the guest's program.
    :ivar followed: the prediction that the evidence was held against; None where it was held against none.
    """

    verdict: Verdict
    evidence: Evidence | None = None
    followed: Followed | None = None


def judge_capture(files: Mapping[str, bytes], kernel: KernelModel) -> Verdict:
    """The verdict of judge_whole()."""
    return judge_whole(files, kernel).verdict


def judge_whole(files: Mapping[str, bytes], kernel: KernelModel) -> JudgedCapture:
    """Judge a capture folder (names to bytes) against the model of the kernel that it ran on.

    Never raises for bad evidence: damage is INCONCLUSIVE with the reason.

    :raise ModelError: the plan cannot be predicted for this kernel.
    """
    name, end = "?", None
    try:
        plan, end = read_plan(files), read_end(files)
        name = plan.scenario
        judged = _judge_end(files, plan, end, kernel)
        return replace(judged, verdict=with_its_host(judged.verdict, end))
    except ModelError as exc:
        if end is None or end.status not in END_WORDS:
            raise
        told = f"{END_WORDS[end.status]} ({end.reason or 'no reason is given'}), and the model cannot follow it"
        raise ModelError(f"{told}: {exc.message}", hint=exc.hint) from exc
    except CaptureDamaged as exc:
        damage = f"damaged capture: {exc.message}"
        if end is not None and end.status in END_WORDS:
            damage = (
                f"{END_WORDS[end.status]} ({end.reason or 'no reason is given'}), and nothing can be judged: {damage}"
            )
        broken = end is None or end.status is not EndStatus.DONE
        verdict = _unjudged(name, kernel, Status.INCONCLUSIVE, damage, taints=broken)
        return JudgedCapture(with_its_host(verdict, end) if end is not None else verdict)


def _judge_end(files: Mapping[str, bytes], plan: Plan, end: RunEnd, kernel: KernelModel) -> JudgedCapture:
    early = _early(end)
    if early is not None:
        # What keeps a scenario from its beginning is in the host, unless the host cannot do what is asked at all.
        return JudgedCapture(
            _unjudged(plan.scenario, kernel, early, end.reason, taints=early is not Status.UNSUPPORTED)
        )
    if plan.guest.kind is GuestKind.HOST_PROGRAM:
        return JudgedCapture(judge_program(files, plan, end, kernel))
    return _judge_decoded(decode(files), kernel)


def _unjudged(scenario: str, kernel: KernelModel, status: Status, reason: str, *, taints: bool = False) -> Verdict:
    """The verdict where there is no evidence that could be held against the model."""
    return Verdict(
        scenario=scenario,
        status=status,
        stage=Stage.PERFORM,
        reason=reason,
        model=kernel.name,
        variant=kernel.variant,
        taints=taints,
    )


def _early(end: RunEnd) -> Status | None:
    """What the end of a run says that never came to the guest's program; None: it did."""
    match end.status:
        case EndStatus.PRECONDITION:
            return Status.INCONCLUSIVE
        case EndStatus.UNSUPPORTED:
            return Status.UNSUPPORTED
        case EndStatus.ERROR:
            return Status.ERROR
        case EndStatus.DONE | EndStatus.GUEST_TIMEOUT | EndStatus.GUEST_PANIC | EndStatus.QEMU_DIED:
            return None
        case _:
            assert_never(end.status)


def judge(evidence: Evidence, kernel: KernelModel) -> Verdict:
    """Judge decoded evidence whose run reached the guest's program."""
    return _judge_decoded(evidence, kernel).verdict


@contextmanager
def _set_aside() -> Iterator[None]:
    """What there is by now, millions of objects perhaps, stays to the end: the collector leaves it alone meanwhile."""
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


@_set_aside()
def _judge_decoded(evidence: Evidence, kernel: KernelModel) -> JudgedCapture:
    plan = evidence.plan
    unproved = next(problems(plan, evidence.precondition), "")
    if unproved:
        why = f"precondition: {unproved}"
        if evidence.precondition is None and evidence.end.status in END_WORDS:
            why = f"before the program was started {END_WORDS[evidence.end.status]}: {evidence.end.reason}"
        broken = evidence.end.status is not EndStatus.DONE
        return JudgedCapture(_unjudged(plan.scenario, kernel, Status.INCONCLUSIVE, why, taints=broken), evidence)
    if (log := within_the_trace(evidence)) is not evidence.guest:
        evidence = replace(evidence, guest=log)
    best = _best(evidence, kernel)
    predicted = best.followed.prediction.known_faults if best.followed is not None else ()
    told = in_light_of_known_faults(
        best.verdict, predicted, kernel, lambda other: _best(evidence, other).verdict, run_with(plan)
    )
    listed, left_out = bounded(told.findings)
    return replace(best, verdict=replace(told, findings=listed, notes=(*told.notes, *left_out)))


def _best(evidence: Evidence, kernel: KernelModel) -> JudgedCapture:
    """The verdict by the prediction that the evidence agrees with best."""
    unplaced = _UNPLACED if _read_ahead_unknown(evidence) else ""
    best = _Best(SeenOnce(evidence, kernel), _races(evidence.plan, kernel), unplaced)
    for _ in predictions(evidence, kernel, best.judge, best.settled):
        if best.found is None or best.decided:
            break
    assert best.found is not None
    late = agent_late(evidence)
    if late and not _convicted(best.found.verdict, evidence.end.status, _BY_AGENT):
        return replace(best.found, verdict=replace(best.found.verdict, status=Status.INCONCLUSIVE, reason=late))
    return _cut_short(best.found, evidence, kernel)


def _cut_short(found: JudgedCapture, evidence: Evidence, kernel: KernelModel) -> JudgedCapture:
    """A run that is as the model has it up to the deadline, of a plan that was to end: the machine was too slow.

    A prediction that follows a recording ends with it; only one of before the run knows whether the plan hangs.
    """
    verdict, followed = found.verdict, found.followed
    if verdict.status is not Status.PASS or evidence.end.status is not EndStatus.GUEST_TIMEOUT or followed is None:
        return found
    if followed.for_all_orders or evidence.plan.guest.kind is not GuestKind.PROBE:
        return found
    before = predict(evidence.plan, kernel, evidence.precondition, orders=ORDERS)
    if not before.ends or before.undecided_end:
        return found
    vcpus, full = evidence.plan.guest.vcpus, with_full_logs(evidence)
    halts = tuple(neither_sleeps_nor_enters(evidence.events, vcpus, to_the_end=full))
    if halts:
        return replace(found, verdict=replace(verdict, status=Status.FAIL, reason=first_words(halts), findings=halts))
    reason = f"what was recorded is as predicted, but the program did not come to its end: {evidence.end.reason}"
    return replace(found, verdict=replace(verdict, status=Status.INCONCLUSIVE, reason=reason))


@dataclass(slots=True)
class _Best:
    """The verdict by the prediction that the evidence agrees with best.

    ``races``, ``unplaced``: what the evidence cannot tell of this plan, whatever the prediction.
    """

    seen: SeenOnce
    races: bool
    unplaced: str
    found: JudgedCapture | None = None
    vain: bool = False

    @property
    def decided(self) -> bool:
        """No other prediction is of use: there are no findings, or only of rules that know nothing of predictions, or
        the guest gave up, so that none can make it a PASS."""
        if self.found is None:
            return False
        return self.vain or all(map(_whatever_the_order, self.found.verdict.findings))

    def settled(self) -> bool:
        """A rule is broken that knows nothing of predictions, so that the kernel is convicted by each."""
        return any(map(_whatever_the_order, self.seen.checked(NOTHING)[0].findings))

    def judge(self, followed: Followed) -> Distance:
        """By one prediction more; how far it is from the evidence."""
        verdict = _judge_by(self.seen, followed)
        unseen = followed.for_all_orders or races_unseen(self.seen.evidence.plan)
        unknown = _UNFOLLOWED if unseen and self.races else self.unplaced
        if unknown and not _convicted(verdict, self.seen.evidence.end.status):
            verdict = replace(verdict, status=Status.INCONCLUSIVE, reason=f"{unknown} ({verdict.reason})")
        if self.found is None or len(verdict.findings) < len(self.found.verdict.findings):
            self.found = JudgedCapture(verdict, self.seen.evidence, followed)
            full = log_is_full(self.seen.evidence, followed.prediction)
            self.vain = full and verdict.status is Status.INCONCLUSIVE
        steps = len(verdict.findings) + len(followed.strays)
        pages = frozenset((*self._pages(verdict.findings), *followed.strays, *followed.misread))
        # Other reads decide only between runs that are as far away: one choice may mend many of them, or none.
        return Distance(steps * _FINER + min(len(followed.misread), _FINER - 1), pages)

    def _pages(self, findings: tuple[Finding, ...]) -> Iterator[int]:
        """The guest pages that findings are about."""
        items, lines = self.seen.evidence.plan.items, {f.line for f in findings if f.line and f.item < 0}
        yield from (items[f.item].gpa >> 12 for f in findings if f.item >= 0)
        yield from (e.gpa >> 12 for e in self.seen.evidence.events if e.line in lines and e.gpa)


def _whatever_the_order(finding: Finding) -> bool:
    return finding.name == OFFERED or (finding.rule in RULES and finding.rule not in KNOW_A_PREDICTION)


def _judge_by(seen: SeenOnce, followed: Followed) -> Verdict:
    """The evidence against one prediction."""
    evidence, kernel = seen.evidence, seen.kernel
    plan, prediction = evidence.plan, followed.prediction
    checked, totals_seen = seen.checked(Expected.by(prediction))
    if evidence.lost:
        return with_lost_events(evidence, kernel, prediction, checked)
    if plan.guest.kind is GuestKind.LINUX:
        rows: tuple[ItemRow, ...] = ()
        findings = list(match_linux(evidence)) if evidence.end.status is EndStatus.DONE else []
    elif evidence.guest is None and evidence.end.status is not EndStatus.DONE:
        rows, findings = (), []  # the guest is gone and took its log with it; the trace has what the host did
    else:
        view = seen.view()
        rows, wrong = match_items(view, prediction)
        findings = [*wrong, *(Finding("guest-log", text) for text in view.alignment.problems)]
        findings += unexplained(view, prediction)
        findings += field_findings(view, prediction, kernel)
        findings += written_findings(evidence)
        findings += offered_findings(evidence, kernel)
        if followed.parted is None and not followed.for_all_orders:
            findings += token_findings(evidence, prediction)
    totals, wrong_totals = match_totals(prediction, totals_seen)
    findings += wrong_totals
    findings += checked.findings
    late = plan.guest.kind is GuestKind.LINUX and evidence.end.status is EndStatus.GUEST_TIMEOUT and prediction.ends
    if not late:
        findings += ending(evidence, prediction)
    elif not checked.findings and not checked.host_trouble:
        reason = f"the Linux guest did not report within its deadline of {plan.deadline_s} s, and no rule was broken"
        return _unjudged(plan.scenario, kernel, Status.INCONCLUSIVE, f"{reason}: {evidence.end.reason}", taints=True)
    if followed.parted is not None:
        findings.append(Finding("lockstep", followed.parted.text, line=followed.parted.line))
    status, reason = _status(evidence, kernel, prediction, findings, totals_seen)
    ordered = in_order(findings)
    if (found := by_machine(checked, ordered)) is not None:
        status, reason, ordered = found
    return Verdict(
        scenario=plan.scenario,
        model=kernel.name,
        variant=kernel.variant,
        status=status,
        reason=reason or (first_words(ordered) if ordered else ""),
        findings=ordered,
        items=rows,
        totals=totals,
        hints=checked.hints,
        unchecked=checked.unchecked,
        timeline=timeline(evidence, ordered),
        notes=(
            *prediction.notes,
            *_open(followed),
            *evidence.host_log.starved,
            *evidence.guest_log.starved,
            *_harmless_trouble(checked, ordered),
        ),
        columns=columns(plan, prediction, totals_seen, rows),
        known_faults=tuple(KnownFaultRow(name, predicted=True, shown=True) for name in prediction.known_faults)
        if status is Status.FINDING
        else (),
        taints=evidence.end.status in (EndStatus.GUEST_TIMEOUT, EndStatus.QEMU_DIED) or bool(checked.host_trouble),
    )


_FINER = 64  # how many misread calls weigh as much as one finding, or one call that only one of the two has
_UNFOLLOWED = "several vCPUs run their programs at once, and in which order is not in the evidence"
_BY_ORDER = ("item", "total", "lockstep", "ending", "D31")
"""Findings that another order of the vCPUs may explain; D31 counts what the items were predicted to do."""
_BY_AGENT = ("item", "total", "lockstep", "ending", "stopped", "D05")
"""Findings of a guest that waited for an agent without a processor: a page that nobody lets come is owed for ever."""

_AT_ANY_TIME = frozenset(
    {"value", "panic", *(f"unexplained:{kind.name}" for kind in (Kind.USER_EXIT, Kind.INJ_OTHER, Kind.ACC))}
)
"""Findings that are wrong whenever a read ends, as those of a rule of the protocol are."""


def _races(plan: Plan, kernel: KernelModel) -> bool:
    """Whether vCPUs touch pages and neither pauses nor anything else puts them in order."""
    touches = touches_of(
        Move(i.index, i.vcpu, i.gpa, i.op is Op.TOUCH, i.value if i.op is Op.AFTER else -1, 1000 * i.pause_us,
             retires(kernel, wait=i.wait), i.op is Op.WAIT)
        for i in plan.items
    )  # fmt: skip
    again = starts_anew(plan)
    return any(undecided(a, b) or (again and a.vcpu != b.vcpu) for a, b in combinations(touches, 2))


_UNPLACED = (
    "where pages of shared memory lie on the swap device nobody outside the kernel can tell, so that which of them"
    " read-ahead brings is not in the evidence"
)


def _read_ahead_unknown(evidence: Evidence) -> bool:
    """Whether several pages of shmem are on a swap device that is read in clusters (mm/swap_state.c:
    swap_cluster_readahead): /proc/PID/pagemap has no swap entry of theirs."""
    plan, known = evidence.plan, places(evidence) or {}
    swapped = [p for p in plan.pages if p.start in (PageStart.SWAPPED, PageStart.ZERO_SWAPPED)]
    shmem = plan.memory.backing is Backing.MEMFD
    return shmem and plan.swap.page_cluster > 0 and len(swapped) > 1 and any(p.gpa >> 12 not in known for p in swapped)


def _convicted(verdict: Verdict, end: EndStatus, excused: Sequence[str] = _BY_ORDER) -> bool:
    """Nothing is wrong, or something that no order, or whatever excuses the other rules, explains."""
    if verdict.status is not Status.FAIL or end in (EndStatus.QEMU_DIED, EndStatus.GUEST_PANIC):
        return True
    return any(f.rule not in excused for f in verdict.findings)


_NAMED = 3


def _harmless_trouble(checked: Checked, findings: Sequence[Finding]) -> Iterator[str]:
    """What the machine did wrong in a run in which nothing went otherwise than predicted."""
    if not findings:
        yield from (f"all is as predicted, although {t.line}" for t in checked.host_trouble if t.explains)


def _open(followed: Followed) -> Iterator[str]:
    """How often the evidence left the model more than one way."""
    if followed.open_:
        kinds = ", ".join(dict.fromkeys(followed.open_[:_NAMED]))
        yield f"the evidence left {len(followed.open_)} choice(s) of the kernel open, all were allowed: {kinds}"


_HAPPENED = ("stopped", OFFERED, f"unexplained:{Kind.INJ_OTHER.name}", f"unexplained:{Kind.ACC.name}")


def _status(
    evidence: Evidence, kernel: KernelModel, prediction: Prediction, findings: list[Finding], seen: Mapping[str, int]
) -> tuple[Status, str]:
    if not evidence.events:
        return Status.INCONCLUSIVE, "the trace is empty: nothing was observed"
    wanted = prediction.totals.get("PF")
    idle = evidence.plan.guest.kind is GuestKind.PROBE and wanted and wanted.low > 0 and seen.get("PF", 0) == 0
    # An exception or an interrupt that KVM gave to the guest, and nothing provokes, is something that happened: the
    # guest died of it.  So is a halt that nothing explains, and what a rule names that is not only owed in the end.
    if idle and not any(f.name in _HAPPENED or (f.rule.startswith("D") and not f.consequence) for f in findings):
        return Status.INCONCLUSIVE, "nothing happened: no planned page was ever faulted on"
    late = let_go_late(evidence)
    shown = any(f.rule.startswith("D") or f.rule in _AT_ANY_TIME or f.name in _AT_ANY_TIME for f in findings)
    if late and not shown and (findings or not foreseen(evidence, kernel)):
        return Status.INCONCLUSIVE, f"{late} {IN_VAIN}"
    # What was still owed when the guest gave up proves nothing: it did so in the midst of all.
    if log_is_full(evidence, prediction) and not any(
        (f.rule.startswith("D") and not f.consequence) or f.rule == "value" for f in findings
    ):
        return Status.INCONCLUSIVE, f"a vCPU of the guest had no room in its log for what came: {evidence.end.reason}"
    if findings:
        return Status.FAIL, ""
    if evidence.end.status is EndStatus.GUEST_TIMEOUT:
        # Only a predicted one comes here.  The deadline proves no more than that nothing came until then.
        stuck = ", ".join(str(i.index) for i in prediction.items if not i.ends)
        known = titles(prediction)
        return Status.FINDING if known else Status.PASS, (
            (f"{known}; " if known else "")
            + f"stopped ({evidence.end.reason}): the model says that the program never ends"
            f" (items {stuck or 'none'}); all that happened until then is as predicted"
            + "".join(f"; {note}" for note in prediction.notes)
        )
    if prediction.known_faults and not prediction.undecided_end:
        return Status.FINDING, titles(prediction)
    return Status.PASS, f"{late} {FORESEEN}" if late else ""


def columns(
    plan: Plan, prediction: Prediction, seen: Mapping[str, int], rows: tuple[ItemRow, ...]
) -> tuple[TotalRow, ...]:
    """The four cells of a run's table.

    "sync" and "mapped" count touches by the outcome of their first fault, in the prediction and in the evidence alike:
    what a touch meets later (repeated faults, a fault to map the page) depends on when its page became ready.
    """
    legal = [(p.outcome, *p.also) for i, p in zip(plan.items, prediction.items, strict=False) if i.op is Op.TOUCH]
    zero = Count.exactly(0)
    return (
        _column("tokens", prediction.totals.get("NPt", zero), seen.get("NPt", 0)),
        _column("halts", prediction.totals.get("NPh", zero), seen.get("NPh", 0)),
        _column("sync", _counted(legal, WAITED), sum(row.first in WAITED for row in rows)),
        _column("mapped", _counted(legal, MAPPED), sum(row.first in MAPPED for row in rows)),
    )


def _column(name: str, predicted: Count, seen: int) -> TotalRow:
    return TotalRow(name, predicted, seen, predicted.allows(seen))


def _counted(legal: Sequence[tuple[Outcome, ...]], wanted: tuple[Outcome, ...]) -> Count:
    """How many touches may and how many must have a first outcome among these."""
    must = sum(all(outcome in wanted for outcome in outcomes) for outcomes in legal)
    return Count(must, sum(any(outcome in wanted for outcome in outcomes) for outcomes in legal))
