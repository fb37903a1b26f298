# SPDX-License-Identifier: GPL-2.0-or-later
"""Swap read-ahead that a plan does not decide: what the host remembers, where the slots lie, which vCPU was first."""

from __future__ import annotations

from dataclasses import replace

from harness.model.outcomes import Count, Outcome
from harness.model.pages import Backing
from harness.model.simulation.program_order import PlacedTouch, touches_of, undecided
from harness.model.simulation.races import move_of
from harness.model.simulation.situation import ItemPrediction, Prediction, Situation

MAX_PAGE_CLUSTER = 6
"""What a scenario may set, and so what the one before it on the host may have had."""
_SMALL = 3
"""page_cluster up to which each place of the first slot is tried with all that the host may remember."""
_WHY = "all vCPUs share the read-ahead of their memory, and nothing decides which of them comes first"
_OWN_READ = frozenset({"MAJ_V", "SYNC", "WAITED", "BLOCK"})
"""What a vCPU thread adds to that reads its page alone, and itself waits for it; or finds that another reads it."""
_MANY = 400
"""So many touches are held against each other; those behind them may come behind any of these."""


def unknown_readahead(situation: Situation) -> list[tuple[str, Situation]]:
    """Cluster read-ahead remembers what the host did before, which nobody knows: each size that the first window may
    have, from 1 to all that page_cluster allows or allowed then (mm/swap_state.c:__swapin_nr_pages).

    Without hits it is 1, or half of the window before, or 2 next to the slot that was read before; with them it is 4 or
    more.  Next to a slot is like a window of 4 before.  Which slot that was matters no more once a window was computed
    without hits; and it matters only where half of the largest window is a single page.
    """
    if not _reads_clusters(situation):
        return []
    windows = [0, *(1 << order for order in range(2, MAX_PAGE_CLUSTER + 1))]
    slots = sorted({p.page.swap.offset for p in situation.pages if p.page.swap is not None})
    apart = slots[-1] + 2  # next to none of them
    # hits, previous slot, previous window; with hits the slot stays what it was
    before = [(16, slot + 1, 0) for slot in slots if situation.device.page_cluster == 1]
    before += [*((0, apart, window) for window in windows), (16, apart, 0)]
    return [
        (
            f"the host's cluster read-ahead starts with {hits} hits, after slot {slot} and a window of {window}",
            replace(
                situation,
                readahead=replace(situation.readahead, hits=hits, prev_offset=slot, last_window=window),
            ),
        )
        for hits, slot, window in before
    ]


def unknown_slots(situation: Situation) -> list[tuple[str, Situation]]:
    """Where the first page's slot may lie in the aligned block that is read with it (mm/swap_state.c:
    swap_cluster_readahead), before anything was written: other pages have the slots before it.  With each that the host
    may remember, too, where these are not too many."""
    if situation.swap_offsets_known or not _reads_clusters(situation):
        return []
    found = []
    for moved in range(1, 1 << situation.device.page_cluster):
        label, there = f"{moved} other slots before the first page's", _moved(situation, moved)
        found.append((label, there))
        if situation.device.page_cluster <= _SMALL:
            found += [(f"{label}, and {also}", each) for also, each in unknown_readahead(there)]
    return found


def _moved(situation: Situation, slots: int) -> Situation:
    pages = tuple(
        replace(p, page=replace(p.page, swap=replace(p.page.swap, offset=p.page.swap.offset + slots)))
        if p.page.swap is not None else p
        for p in situation.pages
    )  # fmt: skip
    return replace(situation, pages=pages)


def _reads_clusters(situation: Situation) -> bool:
    """Only do_swap_page passes read-ahead by for a synchronous device; shmem_swapin does not ask what the device is."""
    passed_by = situation.device.synchronous and situation.vma.backing is not Backing.SHMEM
    on_swap = any(p.page.swap is not None for p in situation.pages)
    return on_swap and situation.device.page_cluster > 0 and not passed_by and not _uses_vma_readahead(situation)


def _uses_vma_readahead(situation: Situation) -> bool:
    return situation.device.vma_readahead and situation.vma.backing is Backing.ANON


def shares_windows(situation: Situation) -> bool:
    """Whether several vCPUs may choose windows by the swap_readahead_info of one VMA."""
    vma = _uses_vma_readahead(situation) and not situation.device.synchronous
    return vma and situation.device.page_cluster > 0 and situation.vcpus > 1


def widen_windows(prediction: Prediction, situation: Situation) -> Prediction:
    """The prediction with what the order of several vCPUs decides by the read-ahead of a VMA: how wide the window of a
    page is hangs on who was read before it, of whichever vCPU (mm/swap_state.c:swap_vma_readahead, swap_readahead_info
    of the VMA).  What one of these touches may be any of them may; counts that differ from run to run may differ by
    each."""
    touched = _touches_in_any_order(situation)
    if not touched:
        return prediction
    items = [item for item in prediction.items if item.index in touched]
    outcomes = dict.fromkeys(outcome for item in items for outcome in (item.outcome, *item.also))
    if Outcome.SYNC in outcomes:
        outcomes[Outcome.BLOCK] = None
    faults = Count(min(i.faults.low for i in items), max(i.faults.high for i in items), _WHY)

    def open_(item: ItemPrediction) -> ItemPrediction:
        also = tuple(outcome for outcome in outcomes if outcome is not item.outcome)
        return replace(
            item, also=also, faults=faults, later=None, issuer="", tokens=(), why=f"{item.why}; or others: {_WHY}"
        )

    open_totals = _OWN_READ if Outcome.SYNC in outcomes else frozenset[str]()
    totals = {
        name: Count(max(0, count.low - len(items)), count.high + len(items), _WHY)
        if count.low < count.high or name in open_totals else count
        for name, count in prediction.totals.items()
    }  # fmt: skip
    changed = tuple(open_(item) if item.index in touched else item for item in prediction.items)
    return replace(prediction, items=changed, totals=totals, notes=(*prediction.notes, _WHY))


def _touches_in_any_order(situation: Situation) -> frozenset[int]:
    """Indices of the steps that touch what was on swap, and come before or behind one of another vCPU as they like; and
    of those that may come behind such a one."""
    if not shares_windows(situation):
        return frozenset()
    swapped = {p.gpa for p in situation.pages if p.page.swap is not None}
    moves = (move_of(s, ends=s.wait) for s in situation.steps)
    touches = [touch for touch in touches_of(moves) if touch.gpa in swapped]
    compared, rest = touches[:_MANY], touches[_MANY:]
    racing = [a for a in compared if any(undecided(a, b) for b in compared)]
    found = [t for t in compared if any(t is r or not _is_first(t, r) for r in racing)]
    return frozenset(t.index for t in (*found, *(rest if racing else ())))


def _is_first(touch: PlacedTouch, other: PlacedTouch) -> bool:
    """Whether ``touch`` comes before ``other`` in all orders."""
    if touch.vcpu == other.vcpu:
        return touch.index < other.index
    return not undecided(touch, other) and touch.paused_ns < other.paused_ns
