# SPDX-License-Identifier: GPL-2.0-or-later
"""Touches of one page by several vCPUs whose order nothing decides: each may be the one that reads, or come after it.

On a synchronous device (zram) a read ends inside its submission, in a time that the model does not know.  Who comes
while it lasts finds swapcache_prepare taken and sleeps a tick in do_swap_page (6.1.192, 6.12; mm/memory.c); who comes
after it finds the PTE (fast, minor) or the mapping (no fault); 5.10 may read twice and drop one copy at pte_same.  From
7.0 on the page is locked in the swap cache meanwhile (mm/swap_state.c:swapin_sync): who comes then may get a token.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from itertools import combinations

from harness.contract.words import Op
from harness.model.kernels import KernelModel, Variant
from harness.model.outcomes import Count, Outcome
from harness.model.simulation.program_order import Move, PlacedTouch, touches_of, undecided
from harness.model.simulation.situation import ItemPrediction, Prediction, Situation, Step

_AT_LEAST_ONCE = ("PF", "PGMAJ", "PSWPIN", "WAITED")
_BY_THE_THREAD = ("SYNC", "MAJ_V")
_BY_A_WORKER = ("NP", "TRY", "DONE", "RDY")
_ANY = (
    "NPt", "NPh", "INJ", "ACC", "ACK", "PF_GUEST", "MAJ_W", "MIN_W", "MIN_V", "BLOCK", "FAST", "MINOR", "BIO_V",
    "BIO_W", "READ_V", "READ_W", "RA", "RAH", "SWPIN_ZERO", "FAIL", "REP",
)  # fmt: skip
_IF_ANY_COMES = ("PF", "BLOCK", "MINOR", "MIN_V", "WAITED")
_AFTERWARDS = (Outcome.NONE, Outcome.FAST, Outcome.MINOR, Outcome.BLOCK)
_ASYNC = (Outcome.TOKEN, Outcome.HALT)
_OF_A_TOKEN = ("TRY", "NP", "NPt", "NPh", "DONE", "RDY", "INJ", "ACC", "ACK", "PF_GUEST", "MIN_W", "WAITED")
_OF_EITHER = (*_OF_A_TOKEN, *_BY_THE_THREAD, *_BY_A_WORKER, "MAJ_W")
_WHY = "two vCPUs touch the page and nothing decides which comes first"


def racing_touches(situation: Situation) -> frozenset[int]:
    """Indices of the steps that race."""
    if not situation.device.synchronous:
        return frozenset()
    by_page: dict[int, list[PlacedTouch]] = defaultdict(list)
    for touch in touches_of(_move(s, situation.kernel) for s in situation.steps):
        by_page[touch.gpa].append(touch)
    return frozenset(
        t.index for touches in by_page.values() for pair in combinations(touches, 2) if undecided(*pair) for t in pair
    )


def _move(s: Step, kernel: KernelModel) -> Move:
    return move_of(s, ends=retires(kernel, wait=s.wait))


def move_of(s: Step, *, ends: bool) -> Move:
    """The step as program_order.py wants it; ``ends``: see Move."""
    after, waits = s.value if s.kind is Op.AFTER else -1, s.kind is Op.WAIT
    return Move(s.index, s.vcpu, s.gpa, s.kind is Op.TOUCH, after, s.pause_ns, ends, waits)


def retires(kernel: KernelModel, *, wait: bool) -> bool:
    """Whether a touch on a synchronous device has certainly retired when its vCPU is past it: the kernel gives no token
    for such a page, or the touch says ``wait``.  Behind a token a kworker may still read the page."""
    return wait or not (kernel.variant is Variant.NOIO or kernel.sync_swapin_shared)


def widen(prediction: Prediction, situation: Situation) -> Prediction:
    """The prediction with everything that a race leaves open."""
    racing = racing_touches(situation)
    if not racing:
        return prediction
    pages = {s.gpa for s in situation.steps if s.index in racing}
    more = len(racing) - len(pages)
    locked = situation.kernel.sync_swapin_shared
    by_the_thread, by_a_worker = pages, pages
    if situation.kernel.variant is Variant.NOIO:  # else such a device is read by threads, or (7.0) by them first
        by_the_thread, by_a_worker = _readers(situation, racing)
    mixed = pages - by_the_thread - by_a_worker
    certain = dict.fromkeys(_ANY, 0) | dict.fromkeys(_AT_LEAST_ONCE, len(pages))
    certain |= dict.fromkeys(_BY_THE_THREAD, len(by_the_thread)) | dict.fromkeys(_BY_A_WORKER, len(by_a_worker))
    totals = dict(prediction.totals)
    for name, times in certain.items():
        old = totals[name]
        happens = old.high > 0 or name in ("BLOCK", "FAST", "MINOR", "MIN_V") or (locked and name in _OF_A_TOKEN)
        if happens or (mixed and name in _OF_EITHER):
            low = max(min(old.low, times), old.low - more)
            totals[name] = Count(low, old.high + more * (2 if name == "PF" else 1), _WHY)
    totals["PGMAJ_REST"] = replace(totals["PGMAJ_REST"], high=max(totals["PGMAJ"].high, totals["PGMAJ_REST"].high))
    reading = {i.outcome for i in prediction.items if i.index in racing} - {Outcome.NONE}
    reading |= {*_ASYNC} if locked or mixed else set()
    reading |= {Outcome.SYNC} if mixed else set()
    items = tuple(_open(i, reading) if i.index in racing else i for i in prediction.items)
    return replace(prediction, totals=totals, items=items, notes=(*prediction.notes, _WHY))


def widen_late(prediction: Prediction, situation: Situation) -> Prediction:
    """The prediction with what becomes of a touch, on whatever device, that may come behind another vCPU's of the same
    page: one that finds the page there in some order may find the VMM's mapping of it (GUP-fast), and the guest's."""
    late = _may_be_late(situation)

    def changed(item: ItemPrediction) -> ItemPrediction:
        known = {item.outcome, *item.also}
        more = tuple(outcome for outcome in (Outcome.FAST, Outcome.NONE) if outcome not in known)
        if item.index not in late or not more or known.isdisjoint(_AFTERWARDS):
            return item
        faults = Count(0 if Outcome.NONE in more else item.faults.low, max(1, item.faults.high), _WHY)
        why = f"{item.why}; or {', '.join(more)}: {_WHY}"
        return replace(item, also=(*item.also, *more), faults=faults, later=None, issuer="", tokens=(), why=why)

    items = tuple(map(changed, prediction.items))
    more = sum(old != new for old, new in zip(prediction.items, items, strict=True))
    if not more:
        return prediction
    totals = dict(prediction.totals)
    totals |= {name: Count(max(0, totals[name].low - more), totals[name].high, _WHY) for name in _IF_ANY_COMES}
    totals["FAST"] = Count(totals["FAST"].low, totals["FAST"].high + more, _WHY)
    return replace(prediction, totals=totals, items=items, notes=(*prediction.notes, _WHY))


def _may_be_late(situation: Situation) -> frozenset[int]:
    """Touches of a page that another vCPU touches before or behind them, as nothing decides."""
    by_page: dict[int, list[PlacedTouch]] = defaultdict(list)
    for touch in touches_of(move_of(s, ends=s.wait) for s in situation.steps):
        by_page[touch.gpa].append(touch)
    pairs = (pair for touches in by_page.values() for pair in combinations(touches, 2) if undecided(*pair))
    return frozenset(touch.index for pair in pairs for touch in pair)


def _readers(situation: Situation, racing: frozenset[int]) -> tuple[set[int], set[int]]:
    """Pages that a vCPU thread reads itself, whoever comes first, and those that a worker does."""
    steps = [s for s in situation.steps if s.index in racing]
    masked = {s.gpa for s in steps if not s.interrupts or s.shadow or s.in_delivery or s.nested}
    told = {s.gpa for s in steps if (s.interrupts and not (s.shadow or s.in_delivery)) or s.nested}
    return masked - told, told - masked


def _open(item: ItemPrediction, reading: set[Outcome]) -> ItemPrediction:
    possible = dict.fromkeys((item.outcome, *item.also, *sorted(reading), *_AFTERWARDS))
    also = tuple(o for o in possible if o is not item.outcome)
    halts = Count(0, 1, _WHY) if set(possible) & set(_ASYNC) else item.halts
    return replace(item, also=also, faults=Count(0, 2 + item.faults.high, _WHY), halts=halts, later=None, issuer="",
                   tokens=(), why=f"{item.why}; or {', '.join(also)}: {_WHY}")  # fmt: skip
