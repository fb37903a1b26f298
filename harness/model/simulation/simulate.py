# SPDX-License-Identifier: GPL-2.0-or-later
"""A Situation in, a Prediction out.

The model knows the device's delay, not how fast a machine handles an exit or starts a kworker.  So a situation is run
under several timings, all with latencies small against the delay; what they agree on is exact, what they differ in
is a range or a set of outcomes, with the reason.  The events are those of the first timing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial

from harness.contract.words import HostWord, Op
from harness.errors import EndlessError, ModelError
from harness.model.outcomes import UNBOUNDED, Count, Outcome
from harness.model.pages import Backing
from harness.model.simulation.choices import Bounds, Choices, Distance, Run, explore
from harness.model.simulation.independent_items import loosen
from harness.model.simulation.machine import Machine, run_once
from harness.model.simulation.pace import late_ns
from harness.model.simulation.races import widen, widen_late
from harness.model.simulation.recorded import Recorded
from harness.model.simulation.replay import Diverged, Replay
from harness.model.simulation.situation import (
    ItemPrediction,
    ModelStep,
    Prediction,
    Situation,
    Timing,
    with_timing,
)
from harness.model.simulation.unknown_readahead import shares_windows, unknown_readahead, unknown_slots, widen_windows
from harness.model.simulation.world import MAX_EVENTS, TOTALS, Fault, ItemLog

MS = 1_000_000
TIMINGS = (
    Timing(),
    Timing("slow workers", worker_ns=3 * MS),
    Timing("slow exits", exit_ns=300_000),
    Timing("slow device", device_ns=12 * MS),
    Timing("reads ending a tick apart", device_gap_ns=4 * MS),
    Timing("read-ahead ending a tick after its target", neighbour_ns=4 * MS),
    Timing("slow exits and workers", exit_ns=300_000, worker_ns=3 * MS, host_ns=20 * MS),
)
_EXPLORED = (
    Timing("reads that end before their submitter tries the lock", reads_first=True),
    Timing("workers slower than all that the guest does meanwhile", worker_ns=100 * MS),
    Timing("vCPUs that wake up when all that they wait for is there", device_ns=12 * MS, wake_ns=100 * MS),
    Timing("an agent slower than the pauses of the guest", host_ns=500 * MS),
    Timing("a gate that looks late", gate_ns=50 * MS),
    Timing("workers that are let run late when their page is there", worker_wake_ns=100 * MS),
    Timing("workers that are slow to end", done_ns=100 * MS),
    Timing("reads that end late and far apart", device_ns=12 * MS, device_gap_ns=20 * MS),
)
_REALTIME = Timing("a worker that waits until the vCPU's thread sleeps", worker_ns=100 * MS)
_BATCHED = Timing("pages that were read in a batch for their LRU lists", batched=True)
_TICKING = Timing("a tick of L1's timer between each token of its L2 and the entry", ticks_between=True)
_AT_ONCE = Timing("vCPUs that read ahead for the first time at once", at_once=True)
_LOST = Timing("mappings before ready events that lose a race against another vCPU", prefetch_lost=True)
_ORDER_EVENTS = 300_000
"""Without a recording no more orders are tried once those that were make so many events: a program that goes round
until its deadline makes thousands in each."""
MAX_RUNS, _LEAST_RUNS, _RUN_EVENTS = 200, 16, 60_000
"""Runs that are tried with a recording, each with other answers to what it leaves open: as many as make _RUN_EVENTS
events of vCPU threads together, but at most MAX_RUNS and, however long the recording is, at least _LEAST_RUNS (all
answers to four questions of two)."""
_NEVER = 1 << 62
_IN_VAIN = 3
"""A third of them is enough where these have come no nearer to the recording."""
MAX_SINGLES, _SINGLES_LONGER = 600, 5
"""Runs with a single answer other than in the first: these may make five times as many events, because they are tried
only where the kernel would be convicted by nothing else."""
MAX_DEEP, _DEEP_EVENTS = 1000, 100_000
"""The last runs before a kernel is convicted by nothing else, and how many events they make together at most."""
RACE_NS = MS
"""A device without more delay than this may have read a page before the submitter looks at it (A.8 row 10)."""


@dataclass(frozen=True, slots=True)
class _Run:
    label: str
    machine: Machine


def variations(situation: Situation) -> list[tuple[str, Situation]]:
    """The runs whose results are merged, with what distinguishes each from the first."""
    gated = situation.device.gated
    # What a gated device reads for one fault ends in an order of its own, and no sooner than the fault is settled.
    timings = [t for t in TIMINGS if not gated or not (t.device_gap_ns or t.neighbour_ns)]
    runs = [(t.name, with_timing(situation, t)) for t in timings]
    if situation.realtime:
        runs.append((_REALTIME.name, with_timing(situation, _REALTIME)))
    if situation.kernel.wp_counts_references and situation.vma.backing is Backing.ANON:
        runs.append((_BATCHED.name, with_timing(situation, _BATCHED)))
    if _syncs(situation) and any(step.nested for step in situation.steps):
        label = "the VMM reads and writes the state of a vCPU after each token of its L2"
        runs.append((label, with_timing(situation, replace(situation.timing, rewritten=True))))
    runs += unknown_readahead(situation)
    if situation.device.delay_ns < RACE_NS and not situation.device.synchronous and not gated:
        runs.append(("reads that end before their submitter looks", _device_wins(situation)))
    return runs


def each_first(situation: Situation) -> list[Timing]:
    """Each vCPU that has a program in turn before all others: no vCPU waits for another one to begin."""
    busy = sorted({step.vcpu for step in situation.steps})
    return [Timing(f"vCPU {v} before the others", first=v) for v in busy] if len(busy) > 1 else []


def _ticks_in_l2(situation: Situation) -> bool:
    """A tick asks for KVM_REQ_EVENT, without which a kernel with F2 does not tell L1."""
    nested = any(step.nested for step in situation.steps)
    return nested and situation.kernel.vmexit_needs_request and any(s.kind is Op.TIMER for s in situation.steps)


def _at_once(timings: Sequence[Timing]) -> tuple[Timing, ...]:
    """That alone, and with each of these: what a narrow window has a vCPU thread do for itself may keep the program
    from its end, and hide what else is late."""
    return _AT_ONCE, *(replace(t, name=f"{t.name}, and {_AT_ONCE.name}", at_once=True) for t in timings)


def _slower_than_pauses(situation: Situation) -> list[Timing]:
    pauses = situation.before_run and any(step.pause_ns for step in situation.steps)
    return [Timing("reads slower than the pauses of the guest", device_ns=late_ns(situation))] if pauses else []


def _syncs(situation: Situation) -> bool:
    lists = (*(actions for _, actions in situation.timed), *(step.actions for step in situation.steps))
    return any(action.do is HostWord.SYNC for actions in lists for action in actions)


def _device_wins(situation: Situation) -> Situation:
    """Each time: whoever submits a read finds the page unlocked."""
    pages = tuple(
        replace(pool, page=replace(pool.page, swap=replace(pool.page.swap, fast=True))) if pool.page.swap else pool
        for pool in situation.pages
    )
    return replace(situation, pages=pages)


def simulate(situation: Situation, *, orders: int = 0, elsewhere: Sequence[tuple[str, Situation]] = ()) -> Prediction:
    """What this situation must lead to.

    :param orders: also what each kind of free choice leads to when it is taken the other way everywhere, and so many
        orders of what may come in any, the likeliest first; a program that does not come to its end in one of the runs
        has a note that says so.
    :param elsewhere: what the situation may be as well, with what is other in it.
    """
    runs = [_Run(label, run_once(each)) for label, each in (*variations(situation), *elsewhere)]
    tried = ""
    whatever = bool(orders) and situation.before_run
    if whatever:
        runs += [_Run(label, run_once(each)) for label, each in unknown_slots(situation)]
    if orders:
        free = tuple(t for t in _EXPLORED if not (situation.device.gated and t.reads_first))
        more = (*free, *_slower_than_pauses(situation), *each_first(situation))
        more += (_LOST,) if situation.vcpus > 1 else ()
        more += _at_once(more) if shares_windows(situation) else ()
        more += (_TICKING,) if _ticks_in_l2(situation) else ()
        found = [(timing.name, _run_or_why_not(with_timing(situation, timing), None)) for timing in more]
        others, tried = _in_other_orders(situation, orders)
        found += others
        runs += [_Run(label, machine) for label, machine in found if isinstance(machine, Machine)]
        tried += _left_out([(label, why) for label, why in found if isinstance(why, str)])
    said = _predict(situation, runs)
    if whatever:
        said = loosen(said, [run.machine.world.items for run in runs], situation)
    said = widen(said, situation)
    if whatever:
        said = widen_late(widen_windows(said, situation), situation)
    return replace(said, orders=tried)


def _left_out(orders: Sequence[tuple[str, str]]) -> str:
    """... and why, with the first of each kind by name."""
    by_reason: dict[str, list[str]] = {}
    for label, why in orders:
        by_reason.setdefault(why, []).append(label)
    return "".join(
        f"; {why}, and so left out: with {labels[0]}" + (f" (and {len(labels) - 1} more)" if len(labels) > 1 else "")
        for why, labels in by_reason.items()
    )


def _run_or_why_not(situation: Situation, choices: Choices | None) -> Machine | str:
    """Text: it makes more events than anybody waits for, as that of a timer beside a program that never ends; or the
    model cannot tell, as where the agent comes to a page that is still read."""
    try:
        return run_once(situation, None, choices)
    except EndlessError:
        return f"of more than {MAX_EVENTS} events"
    except ModelError as exc:
        return exc.message


def _in_other_orders(situation: Situation, most: int) -> tuple[list[tuple[str, Machine | str]], str]:
    """Runs in which one thing that the kernel is free in is late, then two, and so on; and how far that went."""
    found: list[Run[Machine | str]] = []
    events = 0
    for run in explore(partial(_run_or_why_not, situation), Bounds(most), lambda _: Distance(0)):
        found.append(run)
        events += len(run.result.world.events) if isinstance(run.result, Machine) else MAX_EVENTS
        if events > _ORDER_EVENTS:
            break
    free, late = len(found[0].choices.asked), Counter(len(run.choices.chosen) for run in found)
    runs = [(_late(run.choices), run.result) for run in found[1:]]
    if len(found) < most and events <= _ORDER_EVENTS:
        return runs, f"all of what may come in any order was tried: {len(found)} orders"
    if late[1] < free:
        return runs, f"{late[1]} of {free} things that may be late were, each by itself"
    more = len(runs) - late[1]
    return (
        runs,
        f"each of {free} things that may be late was by itself, and up to {max(late)} together in {more} orders",
    )


def _late(choices: Choices) -> str:
    """What is other in a run than in the likeliest."""
    return " and ".join(why if not nth else f"{why} (after {nth} times)" for why, nth in choices.chosen)


@dataclass(frozen=True, slots=True)
class Followed:
    """A run of the model that followed a recording.  ``open_``: questions that the recording did not answer.

    ``for_all_orders``: it follows nothing, and its ranges stand for every order that the model's timings make.
    ``strays``: the page of each call of handle_mm_fault that only one of the two has, or that returned otherwise;
    ``misread``: ... in which other pages were read; ``parted``: where no run could follow, and the prediction is that
    of before the run.
    """

    prediction: Prediction
    open_: tuple[str, ...] = ()
    strays: tuple[int, ...] = ()
    misread: tuple[int, ...] = ()
    for_all_orders: bool = False
    parted: Diverged | None = None


def follow(
    situation: Situation,
    recorded: Recorded,
    distance: Callable[[Followed], Distance] = lambda _: Distance(None),
    settled: Callable[[], bool] = lambda: False,
) -> Iterator[Followed]:
    """Every run that the model allows and that is consistent with the recording, as far as bounds_of() lets it look.

    If there is none: what is predicted without the recording, and where the run parted from it that came furthest.

    :param distance: how far a run is from what was seen, for the order in which they come; called once for each.
    :param settled: see explore().
    """
    furthest: Diverged | None = None
    found = False

    def far(attempt: Followed | Diverged) -> Distance:
        if isinstance(attempt, Followed):
            return distance(attempt)
        if attempt.misread is None:
            return Distance(None, attempt.pages, attempt.t_ns)
        at_ns, _, asked = attempt.misread  # what comes behind that counts for little
        return Distance(None, attempt.pages, at_ns, attempt.t_ns, asked)

    starts = _likeliest_first([situation, *(varied for _, varied in unknown_readahead(situation))], recorded)
    for run in explore(partial(_attempt, starts, recorded), bounds_of(recorded.length), far, settled):
        if isinstance(run.result, Followed):
            found = True
            yield run.result
        elif furthest is None or run.result.t_ns > furthest.t_ns:
            furthest = run.result
    if not found:
        failed = Followed(simulate(situation), parted=furthest)
        distance(failed)
        yield failed


def _likeliest_first(starts: Sequence[Situation], recorded: Recorded) -> Sequence[Situation]:
    """What the host remembered decides how wide the first windows are, and these are recorded."""
    if len(starts) == 1 or (first := _misread_ns(starts[0], recorded)) == _NEVER:
        return starts
    when = [first, *(_misread_ns(start, recorded) for start in starts[1:])]
    return [starts[n] for n in sorted(range(len(starts)), key=when.__getitem__, reverse=True)]


def _misread_ns(start: Situation, recorded: Recorded) -> int:
    """When the likeliest run from there first reads other pages than the recording shows."""
    replay = Replay(recorded, Choices())
    with suppress(Diverged, ModelError):
        run_once(start, replay)
    return replay.misread[0][0] if replay.misread else _NEVER


def bounds_of(events: int) -> Bounds:
    """How far the search for a run goes that agrees with a recording of so many events of vCPU threads."""
    afforded = _RUN_EVENTS // max(1, events)
    runs = max(_LEAST_RUNS, min(MAX_RUNS, afforded))
    deep = min(MAX_DEEP, _DEEP_EVENTS // max(1, events))
    return Bounds(runs, vain=runs // _IN_VAIN, singles=min(MAX_SINGLES, _SINGLES_LONGER * afforded), deep=deep)


def _attempt(starts: Sequence[Situation], recorded: Recorded, choices: Choices) -> Followed | Diverged:
    situation = starts[choices.ask(len(starts), "what the host's cluster read-ahead remembers")]
    replay = Replay(recorded, choices)
    try:
        machine = run_once(situation, replay)
        predicted = _predict(situation, [_Run("as recorded", machine)])
        misread = tuple(page for _, page, _ in replay.misread)
        return Followed(predicted, tuple(choices.reasons), tuple(replay.strays), misread)
    except Diverged as parting:
        parting.misread = replay.misread[0] if replay.misread else None
        return parting
    except ModelError as exc:  # without a recording the plan comes to an end: what does not fit goes round in circles
        return Diverged(0, 0, f"the model cannot follow the recording: {exc.message}")


def _predict(situation: Situation, runs: list[_Run]) -> Prediction:
    first = runs[0].machine
    items = tuple(_item(n, runs, situation) for n in range(len(situation.steps)))
    totals = {name: _count(name, runs) for name in TOTALS}
    totals["PGMAJ_HOST"] = Count(totals["PGMAJ"].low, UNBOUNDED, "vmstat counts the major faults of the whole host")
    totals["PGMAJ_REST"] = Count(0, totals["PGMAJ"].high, "vmstat's without those of all other processes, or fewer")
    notes = list(dict.fromkeys(note for r in runs for note in r.machine.world.notes))
    undecided = _undecided_end(runs)
    if undecided:
        notes.append(undecided)
    return Prediction(
        kernel=situation.kernel.name,
        items=items,
        totals=totals,
        events=tuple(first.world.events),
        ends=first.ended,
        undecided_end=undecided,
        notes=tuple(notes),
        known_faults=tuple(dict.fromkeys(f for r in runs for f in r.machine.world.known_faults)),
        tokens_left=tuple(
            -1 if vcpu.kvm.state.queue or vcpu.kvm.state.done else vcpu.kvm.state.token for vcpu in first.host.vcpus
        ),
    )


def _undecided_end(runs: list[_Run]) -> str:
    """What to say when the program comes to its end under some timings and not under others."""
    ended = [r.machine.ended for r in runs]
    if len(set(ended)) == 1:
        return ""
    other = next(r for r in runs if r.machine.ended != ended[0])
    stuck = next(r for r in runs if not r.machine.ended).machine
    left = sum(len(v.kvm.state.queue) for v in stuck.host.vcpus)
    works = f"{left} works are outstanding at the deadline"
    if ended[0]:
        return f"the program ends, but not with {other.label} ({works} then)"
    return f"the program never ends, but it does with {other.label} ({works} otherwise)"


def _range(values: list[int], runs: list[_Run]) -> Count:
    low, high = min(values), max(values)
    if low == high:
        return Count.exactly(low)
    other = next(i for i, v in enumerate(values) if v != values[0])
    return Count(low, high, f"{values[0]}, but {values[other]} with {runs[other].label}")


_MAY_BE_MORE = {
    "PGMAJ": "kworkers that look for a page before either of them reads it",
    "PSWPIN": "reads that were in flight when the recording ended",
}


def _count(name: str, runs: list[_Run]) -> Count:
    found = _range([r.machine.world.totals[name] for r in runs], runs)
    for run in runs:
        if name in run.machine.world.unbounded:
            return Count(found.low, UNBOUNDED, run.machine.world.unbounded[name])
    less = max(r.machine.world.may_be_less[name] for r in runs)
    if less:
        why = "pages that follow on each other on the swap device share a bio, and where they are is not known"
        return Count(max(1, found.low - less), found.high, why)
    more = max(r.machine.world.may_be_more[name] for r in runs)
    if more:
        return Count(found.low, found.high + more, _MAY_BE_MORE[name])
    return found


def _first_outcome(log: ItemLog) -> Outcome:
    return log.faults[0].outcome if log.faults else Outcome.NONE


def _item(position: int, runs: list[_Run], situation: Situation) -> ItemPrediction:
    step = situation.steps[position]
    logs = [r.machine.world.items.get(step.index, ItemLog()) for r in runs]
    outcomes = list(dict.fromkeys(_first_outcome(log) for log in logs))
    base = logs[0]
    read_at = next((n for n, fault in enumerate(base.faults) if fault.issuer), 0)
    deciding = base.faults[0] if base.faults else Fault(Outcome.NONE, rule="", why=_without_fault(step.kind))
    why = deciding.why
    if len(outcomes) > 1:
        label = next(r.label for r, log in zip(runs, logs, strict=True) if _first_outcome(log) is not outcomes[0])
        why += f"; or {outcomes[1]} with {label}"
    content = next((p.content for p in situation.pages if p.gpa == step.gpa), 0)
    reads = step.kind is Op.TOUCH and not step.write and base.ended
    return ItemPrediction(
        index=step.index,
        vcpu=step.vcpu,
        page=step.page,
        outcome=outcomes[0],
        also=tuple(outcomes[1:]),
        later=_later(logs),
        faults=_often([len(log.faults) for log in logs], logs, runs),
        repeats=_often([_how_often(log, Outcome.REPEATED) for log in logs], logs, runs),
        halts=_often([_how_often(log, Outcome.HALT) for log in logs], logs, runs),
        tokens=tuple(f.token for f in base.faults if f.outcome is Outcome.TOKEN),
        issuer=base.faults[read_at].issuer if base.faults else "",
        read_at=read_at,
        value=content if reads else None,
        ends=base.ended,
        end_known=len({log.ended for log in logs}) == 1,
        gp=base.gp,
        rule=deciding.rule,
        why=why,
    )


def _often(values: list[int], logs: list[ItemLog], runs: list[_Run]) -> Count:
    """A range of what faults of an item came to; without bound where token and ready go round for ever."""
    found = _range(values, runs)
    if not _endless(logs):
        return found
    round_ = "halts that end at once" if any(log.goes_round for log in logs) else "token and ready for ever"
    return Count(found.low, UNBOUNDED, round_)


def _endless(logs: list[ItemLog]) -> bool:
    return any(log.goes_round or _how_often(log, Outcome.LOOP) for log in logs)


def _later(logs: list[ItemLog]) -> tuple[Outcome, ...] | None:
    """All faults of an item but its first, if they are the same in each run and it is known how many there are."""
    if _endless(logs) or len({tuple(f.outcome for f in log.faults) for log in logs}) > 1:
        return None
    return tuple(f.outcome for f in logs[0].faults[1:])


def _how_often(log: ItemLog, outcome: Outcome) -> int:
    return sum(1 for f in log.faults if f.outcome is outcome)


def _without_fault(kind: Op | ModelStep) -> str:
    return "the guest has a mapping, or never got to it" if kind is Op.TOUCH else ""
