# SPDX-License-Identifier: GPL-2.0-or-later
"""gate.json against itself, the plan, the precondition and the trace: which reads were answered, and when.

Each function yields contradictions in words, nothing where there is none.  A contradiction is damage: no kernel writes
gate.json, and what the kernel asks of the gated device is in the trace.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence

from harness.contract.capture import GateLog, GateRead, Precondition
from harness.contract.plan import PAGE_SIZE, Plan, SwapKind, says
from harness.contract.words import HostWord
from harness.model.events import Event, Kind
from harness.model.walk.flags import FaultFlag

_SECTOR = 512
_SECTORS = PAGE_SIZE // _SECTOR
_RETRIES = FaultFlag.ALLOW_RETRY | FaultFlag.RETRY_NOWAIT


READ_BY = (Kind.BIO, Kind.BIO_END, Kind.MM_FAULT)
"""Events that gate.json is held against."""


def gate_problems(
    plan: Plan, gate: GateLog, seen: Precondition | None, events: Sequence[Event], device: int, ram_hva: int = 0,
    end_ns: int = 0,
) -> Iterator[str]:  # fmt: skip
    """Contradictions of the log.

    :param events: of the trace, READ_BY, of which none is lost.
    :param device: the gated one, as Event.dev has it.
    :param ram_hva: where QEMU has the guest's RAM; 0: calls of handle_mm_fault say nothing of a page.
    :param end_ns: of the trace: who asked later is in none.
    """
    if gate.held < 0:
        yield f"gate.json: {gate.held} reads were held"
    for number, read in enumerate(gate.reads):
        yield from (f"gate.json: read {number}: {text}" for text in _times(read))
        yield from (f"gate.json: read {number}: {text}" for text in _places(plan, read, seen))
    if plan.swap.kind is SwapKind.GATED:
        yield from _against_trace(gate, [e for e in events if e.dev == device and e.flag])
    elif ram_hva and not says(plan, HostWord.SAVEVM):  # QEMU reads all of RAM for a snapshot, in a thread of its own
        sleeping = (e for e in events if e.kind is Kind.MM_FAULT and e.value & _RETRIES == FaultFlag.ALLOW_RETRY)
        reads = [read for read in gate.reads if read.at_ns <= end_ns]
        yield from _against_faults(reads, sleeping, ram_hva)


def _times(read: GateRead) -> Iterator[str]:
    if not 0 < read.at_ns <= read.answered_ns:
        yield f"answered at {read.answered_ns}, asked for at {read.at_ns}"
    if read.ended_ns and read.ended_ns < read.answered_ns:
        yield f"ended at {read.ended_ns}, answered at {read.answered_ns}"


def _places(plan: Plan, read: GateRead, seen: Precondition | None) -> Iterator[str]:
    """What was read, and which of the plan's pages that was; of a userfaultfd a page is its own place."""
    if read.sector < 0 or read.sectors <= 0 or read.sector % _SECTORS or read.sectors % _SECTORS:
        yield f"of {read.sectors} sectors from {read.sector} on"
        return
    if plan.swap.kind is SwapKind.USERFAULT and read.sectors != _SECTORS:
        yield f"of {read.sectors} sectors, where a userfaultfd tells of one page"
    covered = range(read.sector, read.sector + read.sectors)
    if plan.swap.kind is SwapKind.USERFAULT:
        due = {page.gpa // PAGE_SIZE for page in plan.pages if page.gpa // _SECTOR in covered}
    else:
        due = {gpa // PAGE_SIZE for gpa, sector in _sectors(seen) if sector in covered}
    if len(read.pages) != len(due) or set(read.pages) != due:
        yield f"of the pages {sorted(read.pages)}, where {sorted(due)} lie"
    names = {page.gpa // PAGE_SIZE for page in plan.pages if page.name in plan.swap.error}
    if bool(read.error) != bool(due & names):
        yield f"ended with errno {read.error}, the plan has {len(due & names)} pages in it that cannot be read"


def _sectors(seen: Precondition | None) -> Iterator[tuple[int, int]]:
    """(gpa, first sector) of the pages of which it is known where they lie on the device."""
    for gpa, page in seen.pages.items() if seen else ():
        if page.sector is not None:
            yield gpa, page.sector
        elif page.swap_offset is not None:
            yield gpa, page.swap_offset * _SECTORS


def _against_trace(gate: GateLog, reads: Sequence[Event]) -> Iterator[str]:
    """The kernel asked for what was answered, and what has ended was answered."""
    asked = _pages(e for e in reads if e.kind is Kind.BIO)
    ended = _pages(e for e in reads if e.kind is Kind.BIO_END)
    until = max((e.t_ns for e in reads), default=0)
    traced = _pages(read for read in gate.reads if read.at_ns <= until)
    if traced - asked:
        yield f"gate.json: {(traced - asked).total()} pages were answered that the trace has no read of"
    if gate.held and asked and not asked - ended:
        yield f"gate.json: {gate.held} reads were held, and all reads of the trace have ended"
    for had, failed in (("an error", True), ("no error", False)):
        told = _pages(e for e in reads if e.kind is Kind.BIO_END and bool(e.token) is failed)
        due = _pages(read for read in gate.reads if bool(read.error) is failed)
        if told - due:
            yield f"gate.json: {(told - due).total()} pages whose reads ended with {had} were not answered so"


def _against_faults(reads: Iterable[GateRead], faults: Iterable[Event], ram_hva: int) -> Iterator[str]:
    """Each call of handle_mm_fault with ALLOW_RETRY and without RETRY_NOWAIT tells the userfaultfd of its page once at
    most, any other never (fs/userfaultfd.c:handle_userfault, 5.10 to 7.3)."""
    calls: dict[int, list[int]] = defaultdict(list)
    for fault in faults:
        calls[(fault.hva - ram_hva) // PAGE_SIZE].append(fault.t_ns)
    asked = Counter[int]()
    for read in sorted(reads, key=lambda read: read.at_ns):
        page = read.sector // _SECTORS
        asked[page] += 1
        if bisect_right(calls[page], read.at_ns) < asked[page]:
            yield f"gate.json: page {page:#x} was asked for at {read.at_ns}, and no call of handle_mm_fault did"


def _pages(reads: Iterable[Event | GateRead]) -> Counter[int]:
    """How often each page was read, by its first sector: it may be read again."""
    return Counter(s for read in reads for s in _covered(read))


def _covered(read: Event | GateRead) -> range:
    first, sectors = (read.sector, read.sectors) if isinstance(read, GateRead) else (read.value, read.data)
    return range(first, first + sectors, _SECTORS)
