# SPDX-License-Identifier: GPL-2.0-or-later
"""What may be null in a record, and what may not: null says that there is no such thing, which plan and host decide.

A value that nobody has seen is not one that says nothing: a rule that needs it would be listed as not checked, and a
run without evidence would pass.  Each field that can be null has its row; a test asks for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from harness.contract.capture import (
    SINCE,
    CounterSnapshot,
    Facts,
    FinalState,
    MemoryLeft,
    OfRun,
    OutsidePage,
    PageLeft,
    PageProof,
    RunFacts,
)
from harness.contract.plan import Backing, Plan, SwapKind

_NO_DEVICE = (SwapKind.NONE, SwapKind.USERFAULT)


@dataclass(frozen=True, slots=True)
class Known:
    """What decides whether a value is there.  ``format``: of the capture."""

    plan: Plan
    facts: Facts
    format: int

    @property
    def traced(self) -> bool:
        """KVM ran the guest: it was traced, and in a cgroup (harness/agent/session.py:prepare_host)."""
        return self.facts.run is not None and self.facts.run.accel == "kvm"


Must = Callable[[Any, Known], bool | None]
"""Of the record that has the field: it is there (True), it is null (False), or either (None)."""


def _always(_record: object, _known: Known) -> bool:
    return True


def _either(_record: object, _known: Known) -> None:
    return None


def _of_a_device(_record: RunFacts, known: Known) -> bool:
    return known.plan.swap.kind not in _NO_DEVICE


def _below(_record: RunFacts, known: Known) -> bool | None:
    return True if known.plan.swap.kind is SwapKind.DELAY else None if _of_a_device(_record, known) else False


def _of_a_slot(proof: PageProof, _known: Known) -> bool | None:
    """/proc/PID/pagemap has the swap entries of anonymous memory; of shmem the server of a gated device may tell."""
    return True if proof.swapped else None


def _of_a_file(_proof: PageProof, known: Known) -> bool:
    return known.plan.memory.backing is not Backing.ANON


def _on_the_disk(proof: PageProof, known: Known) -> bool:
    return known.plan.memory.backing is Backing.FILE and not proof.hole


def _present(page: PageLeft, _known: Known) -> bool:
    return page.present


def _flagged(page: PageLeft, _known: Known) -> bool | None:
    """Nobody tells them of a page of a large folio, nor of the zero page (harness/agent/pages/page_flags.py)."""
    if page.present and not page.large and page.word == 0:
        return None if page.uptodate is None and page.swap_backed is None else True
    return page.present and not page.large


def _listed(page: PageLeft, known: Known) -> bool | None:
    """Not where nobody can empty the batches of the CPUs (harness/agent/pages/final_state.py)."""
    return known.facts.host.compaction and not known.plan.guest.realtime and page.uptodate is not None


def _charged(page: PageLeft, known: Known) -> bool | None:
    """A page of a file on a disk is charged to whoever read it first."""
    if known.plan.memory.backing is Backing.FILE or not known.traced or page.uptodate is None:
        return False
    return True if known.facts.host.cgroup_memory else None


def _perhaps_taken(page: PageLeft, _known: Known) -> bool | None:
    return None if page.present else False


def _swaps(_left: MemoryLeft, known: Known) -> bool:
    return known.traced and known.plan.memory.backing is not Backing.FILE and known.plan.swap.kind not in _NO_DEVICE


def _in_a_group(_left: MemoryLeft, known: Known) -> bool:
    return known.traced


def _on_lists(_left: MemoryLeft, known: Known) -> bool | None:
    """Before the host said whether its batches can be emptied, null said so."""
    if known.format < SINCE["compaction"]:
        return None if known.traced else False
    return known.traced and known.facts.host.compaction


MUST: Mapping[tuple[type, str], Must] = {
    (Facts, "run"): _always,
    (RunFacts, "io_dev"): _of_a_device,
    (RunFacts, "backing_device"): _below,
    (PageProof, "swap_type"): _of_a_slot,
    (PageProof, "swap_offset"): _of_a_slot,
    (PageProof, "hole"): _of_a_file,
    (PageProof, "sector"): _on_the_disk,
    (OutsidePage, "gpa"): _either,  # its being there is what counts
    (PageLeft, "dirty"): _present,
    (PageLeft, "swap_cache"): _present,
    (PageLeft, "large"): _present,
    (PageLeft, "word"): _present,
    (PageLeft, "on_list"): _listed,
    (PageLeft, "charged"): _charged,
    (PageLeft, "uptodate"): _flagged,
    (PageLeft, "swap_backed"): _flagged,
    (PageLeft, "again"): _perhaps_taken,
    (FinalState, "areas"): _always,
    (MemoryLeft, "mapped"): _in_a_group,
    (MemoryLeft, "listed"): _on_lists,
    (MemoryLeft, "works"): _either,
    (MemoryLeft, "contexts"): _either,
    (MemoryLeft, "unlisted"): _either,
    (MemoryLeft, "cached"): _either,
    (MemoryLeft, "slots"): _swaps,
    (CounterSnapshot, "anon_pages"): _always,
    (CounterSnapshot, "other_majors"): _always,
}
"""By record and field; the nonce of each is looked at when it is read (decode.py)."""


def null_problems(name: str, record: OfRun, known: Known) -> Iterator[str]:
    """What is null in this file and must not be, or the other way round."""
    for path, owner, field in _optional(record, ""):
        if SINCE.get(field, 0) > known.format:
            continue
        must, null = MUST[type(owner), field](owner, known), getattr(owner, field) is None
        if must is not None and must == null:
            yield f"{name}: {path}{field} is {'null, but it must be there' if null else 'there, but it must be null'}"


def _optional(value: Any, path: str) -> Iterator[tuple[str, Any, str]]:
    """The place, the record and the name of each field below that may be null, and has a row."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            if (type(value), field.name) in MUST:
                yield path, value, field.name
            yield from _optional(getattr(value, field.name), f"{path}{field.name}.")
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _optional(inner, f"{path}{key}.")
    elif isinstance(value, tuple):
        for number, inner in enumerate(value):
            yield from _optional(inner, f"{path}{number}.")
