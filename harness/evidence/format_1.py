# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of format 1 (their end.json has no "format"), as the records of today.

What is missing in them was not recorded then: it becomes None, empty or unknown, never a value that says something.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from harness.contract.capture import (
    CounterSnapshot,
    CpuTraceStats,
    FinalState,
    OutsidePage,
    PageLeft,
    PageProof,
    Precondition,
    RunEnd,
    ThreadFaults,
    TraceStats,
)
from harness.contract.structure import need_object, structure
from harness.errors import UsageError

FORMAT = 1
MAX_UNNAMED = 1024
"""So many pages at most stand for those that are counted and not named."""
T = TypeVar("T")


def run_end(raw: Any) -> RunEnd:
    """end.json. :raise UsageError: (all of this module) the file does not say what it must."""
    return structure(RunEnd, {"reason": "", "undone": True, **need_object(raw), "format": FORMAT})


def precondition(raw: Any) -> Precondition:
    """precondition.json: ``others`` are the pages outside the plan; ``others_swapped`` counts them."""
    table = need_object(raw)
    others = table.get("others") or []
    if not isinstance(others, list):
        raise UsageError(f"$.others: expected a list, got {others!r:.100}")
    outside = [_outside(entry) for entry in others]
    counted = structure(int, table.get("others_swapped", len(outside)), "$.others_swapped")
    unnamed = [OutsidePage(0, None, "not recorded")] * min(max(0, counted - len(outside)), MAX_UNNAMED)
    return Precondition(
        reached=structure(bool, table.get("reached"), "$.reached"),
        reason=structure(str, table.get("reason", ""), "$.reason"),
        totals=structure(Mapping[str, int], table.get("totals", {}), "$.totals"),  # type: ignore[type-abstract]  # a Mapping is no class
        outside=(*outside, *unnamed),
        pages=_by_gpa(table.get("pages"), lambda entry: _known(PageProof, entry)),
    )


def final_state(raw: Any) -> FinalState:
    """after.json."""
    table = need_object(raw)
    tails = structure(Mapping[int, bool], table.get("shared_tail_zero"), "$.tails")  # type: ignore[type-abstract]  # a Mapping is no class
    return FinalState(tails, {}, {}, _by_gpa(table.get("pages"), lambda entry: _known(PageLeft, entry)))


def counters(raw: Any) -> CounterSnapshot:
    """counters/before.json or after.json."""
    table = need_object(raw)
    thread = {"name": "", "state": "", "vcpu": -1}
    threads = {tid: {**thread, **need_object(entry)} for tid, entry in need_object(table.get("threads", {})).items()}
    return CounterSnapshot(
        vmstat=_numbers(table, "vmstat"),
        memory_stat=_numbers(table, "memory_stat"),
        threads=structure(Mapping[int, ThreadFaults], threads, "$.threads"),  # type: ignore[type-abstract]  # a Mapping is no class
        kvm=_numbers(table, "kvm"),
        anon_pages=structure(int, table["anon_pages"], "$.anon_pages") if "anon_pages" in table else None,
    )


def trace_stats(raw: Any) -> TraceStats:
    """trace/stats.json: "cpu0" and so on, the counters named as the kernel does, with spaces."""
    cpus = {
        name.removeprefix("cpu"): {key.replace(" ", "_"): value for key, value in need_object(entry).items()}
        for name, entry in need_object(raw).items()
    }
    numbered = {"entries": 0, "overrun": 0, "commit_overrun": 0, "dropped_events": 0}
    filled = {name: {**numbered, **entry} for name, entry in cpus.items()}
    return TraceStats(structure(Mapping[int, CpuTraceStats], filled))  # type: ignore[type-abstract]  # a Mapping is no class


def _numbers(table: Mapping[str, Any], name: str) -> Mapping[str, int]:
    return structure(Mapping[str, int], table.get(name) or {}, f"$.{name}")  # type: ignore[type-abstract]  # a Mapping is no class


def _by_gpa(raw: Any, one: Callable[[Any], T]) -> dict[int, T]:
    keys = structure(Mapping[int, bool], dict.fromkeys(need_object(raw), True), "$.pages")  # type: ignore[type-abstract]  # a Mapping is no class
    return {gpa: one(entry) for gpa, entry in zip(keys, raw.values(), strict=True)}


def _outside(raw: Any) -> OutsidePage:
    """Its address was text in hexadecimal."""
    table = need_object(raw)
    try:
        address = int(structure(str, table.get("address"), "$.others"), 16)
    except ValueError:
        address = 0
    return structure(OutsidePage, {"gpa": None, "region": "", **table, "address": address}, "$.others")


def _known(cls: type[T], raw: Any) -> T:
    """A record of today from the keys that it knows."""
    fields = cls.__dataclass_fields__  # type: ignore[attr-defined]
    return structure(cls, {key: value for key, value in need_object(raw).items() if key in fields}, "$.pages")
