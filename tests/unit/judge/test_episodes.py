# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of behaviour.md B.15: what a vCPU thread's trace says became of one access."""

from __future__ import annotations

import pytest

from harness.judge.episodes import VM_FAULT_MAJOR, VM_FAULT_RETRY, outcome, split
from harness.model.events import MSR_ASYNC_PF_EN, Event, Kind
from harness.model.outcomes import Outcome

DEV = 253 << 20
GPA = 0x1000000


def ev(kind: Kind, **fields: int | bool) -> Event:
    fields.setdefault("vcpu", 0)
    return Event(kind, **fields)  # type: ignore[arg-type]


PF = ev(Kind.PF, gpa=GPA)
ENTRY = ev(Kind.ENTRY)
TRY, NP, REP = ev(Kind.TRY, gpa=GPA), ev(Kind.NP, token=0x1000, gpa=GPA), ev(Kind.REP, gpa=GPA)
RDY, INJ, AGAIN = ev(Kind.RDY, token=0x1000, gpa=GPA), ev(Kind.INJ), ev(Kind.INJ, flag=True)
FAULT = ev(Kind.MM_FAULT)
BIO, WRITE, OTHER = ev(Kind.BIO, dev=DEV, flag=True), ev(Kind.BIO, dev=DEV), ev(Kind.BIO, dev=1, flag=True)
SLEEP_D, SLEEP_S, WAKE = ev(Kind.OUT, value=ord("D")), ev(Kind.OUT, value=ord("S")), ev(Kind.IN)
PREEMPTED = ev(Kind.OUT, value=ord("R"))


def ret(bits: int) -> Event:
    return ev(Kind.MM_FAULT_RET, value=bits)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], Outcome.FAST),
        ([PREEMPTED, WAKE], Outcome.FAST),
        ([FAULT, ret(0)], Outcome.MINOR),
        ([FAULT, WRITE, ret(0)], Outcome.MINOR),
        ([FAULT, OTHER, ret(0)], Outcome.MINOR),
        ([FAULT, BIO, ret(VM_FAULT_RETRY), TRY, NP, INJ], Outcome.TOKEN),
        ([FAULT, ret(VM_FAULT_RETRY), TRY, NP, RDY, INJ], Outcome.TOKEN),
        ([FAULT, ret(VM_FAULT_RETRY), TRY, NP, SLEEP_S, WAKE, RDY], Outcome.HALT),
        ([TRY, NP, AGAIN, SLEEP_S, WAKE, RDY], Outcome.HALT),
        ([INJ, TRY, NP, SLEEP_S], Outcome.HALT),
        ([FAULT, ret(VM_FAULT_RETRY), TRY, REP, SLEEP_S, WAKE], Outcome.REPEATED),
        ([FAULT, BIO, SLEEP_D, WAKE, ret(VM_FAULT_MAJOR)], Outcome.SYNC),
        ([FAULT, ret(VM_FAULT_MAJOR)], Outcome.SYNC),
        ([FAULT, SLEEP_D, WAKE, ret(0)], Outcome.BLOCK),
        ([FAULT, BIO, ret(0x200)], Outcome.MINOR),  # a hit on PG_readahead: the next window is read, nobody waits
        ([ev(Kind.USER_EXIT, value=14)], Outcome.ERROR),
    ],
)
def test_outcomes(events: list[Event], expected: Outcome) -> None:
    (episode,) = split([PF, *events, ENTRY])
    assert outcome(episode, DEV, probed=True) is expected


RESET, SHUT_PAGING, LEAVES = ev(Kind.CLEAR), ev(Kind.CLEAR, flag=True), ev(Kind.USER_EXIT, value=10)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([TRY, NP, LEAVES, RESET, ENTRY], Outcome.QUEUED),
        ([TRY, NP, LEAVES], Outcome.QUEUED),  # the end of the trace
        ([TRY, NP, LEAVES, SLEEP_S, WAKE, RESET, ENTRY], Outcome.QUEUED),  # QEMU slept
        ([TRY, NP, SLEEP_S, WAKE, LEAVES, RESET, ENTRY], Outcome.HALT),
        ([TRY, NP, SLEEP_S], Outcome.HALT),
        ([TRY, NP, LEAVES, ENTRY], Outcome.HALT),  # no reset: a token would have been injected
        ([TRY, NP, SHUT_PAGING, ENTRY], Outcome.HALT),
        ([TRY, NP, INJ, LEAVES, RESET, ENTRY], Outcome.TOKEN),
    ],
)
def test_token_or_halt_when_no_entry_tells(events: list[Event], expected: Outcome) -> None:
    (episode,) = split([PF, *events])
    assert outcome(episode, DEV, probed=True) is expected


def test_without_the_probes_a_minor_fault_cannot_be_told_from_a_fast_one() -> None:
    (episode,) = split([PF, ENTRY])
    assert outcome(episode, DEV, probed=False) is Outcome.FAST


HVA, AREA = 0x7F0000000000, 0x1400000
EN = ev(Kind.WRMSR, value=MSR_ASYNC_PF_EN, data=AREA | 0x49)
OF_AREA = [
    ev(Kind.MM_FAULT, hva=HVA + AREA + 4), BIO, SLEEP_D, WAKE, ret(VM_FAULT_RETRY),
    ev(Kind.MM_FAULT, hva=HVA + AREA + 4), ret(VM_FAULT_MAJOR),
]  # fmt: skip
OF_PAGE = ev(Kind.MM_FAULT, hva=HVA + GPA)


@pytest.mark.parametrize(
    ("before", "expected"),
    [
        ([], Outcome.FAST),
        ([OF_PAGE, ret(0)], Outcome.MINOR),
        ([OF_PAGE, SLEEP_D, WAKE, ret(0)], Outcome.BLOCK),
        ([OF_PAGE, ret(VM_FAULT_RETRY), TRY, NP], Outcome.HALT),
    ],
)
def test_what_kvm_does_for_the_shared_area_is_not_the_accesss(before: list[Event], expected: Outcome) -> None:
    """apf_put_user_ready and its like sleep where the area's page has been reclaimed, and read it themselves."""
    (episode,) = split([EN, PF, *before, *OF_AREA, ENTRY], HVA)
    assert outcome(episode, DEV, probed=True) is expected
    assert episode.own_reads(DEV) == 0
    (told_nothing,) = split([EN, PF, *before, *OF_AREA, ENTRY])
    assert told_nothing.own_reads(DEV) == 1


def test_an_access_to_the_page_of_the_area_is_one() -> None:
    (episode,) = split([EN, ev(Kind.PF, gpa=AREA), *OF_AREA, ENTRY], HVA)
    assert outcome(episode, DEV, probed=True) is Outcome.SYNC
    assert episode.own_reads(DEV) == 1


RDY = ev(Kind.RDY)


@pytest.mark.parametrize(
    ("before", "expected"),
    [([], Outcome.FAST), ([OF_PAGE, ret(0)], Outcome.MINOR), ([OF_PAGE, SLEEP_D, WAKE, ret(0)], Outcome.BLOCK)],
)
def test_waiting_for_the_work_of_another_page_is_not_the_accesss(before: list[Event], expected: Outcome) -> None:
    (episode,) = split([PF, *before, RDY, SLEEP_D, WAKE, ENTRY])
    assert outcome(episode, DEV, probed=True) is expected


def test_an_episode_ends_at_the_entry_of_its_own_vcpu() -> None:
    other = ev(Kind.PF, gpa=0x2000000, vcpu=1)
    first, second = split([PF, other, ev(Kind.ENTRY, vcpu=1), TRY, NP, ev(Kind.ENTRY), REP])
    assert [e.kind for e in first.events] == [Kind.TRY, Kind.NP] and first.token == 0x1000
    assert second.vcpu == 1 and not second.events
    (open_one,) = split([PF, TRY])
    assert open_one.end is None


def test_blocked_time_counts_sleep_not_preemption() -> None:
    def at(event: Event, t: int) -> Event:
        return Event(event.kind, 0, t, value=event.value)

    events = [
        PF,
        at(PREEMPTED, 10),
        at(WAKE, 20),
        at(SLEEP_D, 30),
        at(WAKE, 130),
        at(SLEEP_S, 200),
        at(WAKE, 250),
        ENTRY,
    ]
    (episode,) = split(events)
    assert episode.blocked_ns == 150


def test_what_the_vmm_faults_on_behind_kvm_run_is_not_the_accesss() -> None:
    """An ejected vCPU: its thread leaves KVM_RUN behind the fault, never enters again, and frees what it has."""
    left = ev(Kind.USER_EXIT, value=4)
    (episode,) = split([PF, left, FAULT, ret(VM_FAULT_MAJOR)])
    assert outcome(episode, DEV, probed=True) is Outcome.FAST
    first, second = split([PF, left, FAULT, ret(0), PF, FAULT, ret(0), ENTRY])
    assert [outcome(each, DEV, probed=True) for each in (first, second)] == [Outcome.FAST, Outcome.MINOR]


def test_who_sleeps_before_it_asks_for_its_page_waits_for_mmap_lock() -> None:
    """Another thread of the VMM changes its mappings."""
    (episode,) = split([PF, SLEEP_D, WAKE, FAULT, ret(0), ENTRY])
    assert outcome(episode, DEV, probed=True) is Outcome.MINOR
    (episode,) = split([PF, SLEEP_D, WAKE, ENTRY])
    assert outcome(episode, DEV, probed=True) is Outcome.FAST and outcome(episode, DEV, probed=False) is Outcome.BLOCK
