# SPDX-License-Identifier: GPL-2.0-or-later
"""gate.json of real runs holds together with plan, precondition and trace; what contradicts them is told."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

import pytest

from harness.contract.capture import GateLog, GateRead
from harness.evidence.decode import decode
from harness.evidence.gate_agreement import READ_BY, gate_problems
from harness.model.events import Kind
from tests.unit.judge.packed import packed_capture

DEVICE, COPIED = "S28R+noio-6.1", "S49+noio-6.1"


def told(name: str, change: Callable[[GateLog], GateLog], again: Iterable[Kind] = ()) -> list[str]:
    """``again``: what comes once more of the first read, after all others."""
    evidence = decode(packed_capture(name))
    assert evidence.gate is not None and evidence.facts is not None
    events = evidence.of(*READ_BY)
    for kind in again:
        first_read = next(e for e in events if e.value == evidence.gate.reads[0].sector)
        events.append(replace(first_read, kind=kind, t_ns=events[-1].t_ns + 1))
    device, ram_hva = evidence.facts.swap_dev, evidence.ram_hva()
    end_ns = evidence.events[-1].t_ns
    return list(
        gate_problems(evidence.plan, change(evidence.gate), evidence.precondition, events, device, ram_hva, end_ns)
    )


def first(**changes: object) -> Callable[[GateLog], GateLog]:
    def change(gate: GateLog) -> GateLog:
        read: GateRead = replace(gate.reads[0], **changes)  # type: ignore[arg-type]
        return replace(gate, reads=(read, *gate.reads[1:]))

    return change


@pytest.mark.parametrize("name", [DEVICE, COPIED, "S47+noio-6.1", "nested-told", "explored-page-by-page"])
def test_a_real_log_holds_together(name: str) -> None:
    assert told(name, lambda gate: gate) == []


@pytest.mark.parametrize("name", [DEVICE, COPIED])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (first(at_ns=0), "asked for at 0"),
        (first(answered_ns=1), "answered at 1"),
        (first(ended_ns=1), "ended at 1"),
        (first(sectors=0), "of 0 sectors"),
        (first(sector=3), "sectors from 3 on"),
        (first(pages=(1,)), "of the pages [1]"),
        (first(error=5), "errno 5"),
        (lambda gate: replace(gate, held=-1), "-1 reads were held"),
    ],
)
def test_what_contradicts_itself_or_the_plan(name: str, change: Callable[[GateLog], GateLog], words: str) -> None:
    assert any(words in text for text in told(name, change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda gate: replace(gate, reads=gate.reads[1:]), "were not answered"),
        (lambda gate: replace(gate, held=1), "all reads of the trace have ended"),
        (
            lambda gate: replace(gate, reads=(*gate.reads, replace(gate.reads[0], sector=8, pages=()))),
            "the trace has no read of",
        ),
    ],
)
def test_what_contradicts_the_trace(change: Callable[[GateLog], GateLog], words: str) -> None:
    assert any(words in text for text in told(DEVICE, change))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda gate: replace(gate, reads=(*gate.reads, gate.reads[0])), "page 0x1000 was asked for"),
        (lambda gate: replace(gate, reads=(*gate.reads, replace(gate.reads[0], sector=8, pages=()))), "page 0x1 was"),
        (first(at_ns=1), "page 0x1000 was asked for at 1"),
    ],
)
def test_a_page_of_a_userfaultfd_is_asked_for_by_a_fault(change: Callable[[GateLog], GateLog], words: str) -> None:
    assert any(words in text for text in told(COPIED, change))


def test_a_page_that_was_asked_for_behind_the_trace_is_in_no_trace() -> None:
    """The agent stops the trace of a guest that is over its deadline, and the guest runs on."""
    assert told(COPIED, lambda gate: replace(gate, reads=(*gate.reads, replace(gate.reads[0], at_ns=1 << 60)))) != []
    late = {"at_ns": 1 << 60, "answered_ns": 1 << 60}
    assert told(COPIED, lambda gate: replace(gate, reads=(*gate.reads, replace(gate.reads[0], **late)))) == []


def test_a_page_that_is_read_again_counts_again() -> None:
    """S330 on a kernel without kvm_async_pf_hash_reset: the vCPU sleeps for ever on the second read of its page."""
    assert told(DEVICE, lambda gate: replace(gate, held=1), [Kind.BIO]) == []
    (twice,) = told(DEVICE, lambda gate: gate, [Kind.BIO, Kind.BIO_END])
    assert "were not answered" in twice
    late = told(DEVICE, lambda gate: replace(gate, held=1), [Kind.BIO, Kind.BIO_END])
    assert any("all reads of the trace have ended" in text for text in late)


@pytest.mark.parametrize(("errno", "words"), [(5, ["1 pages whose reads ended with an error"]), (0, [])])
def test_a_read_fails_only_where_the_server_says_so(errno: int, words: list[str]) -> None:
    evidence = decode(packed_capture(DEVICE))
    assert evidence.gate is not None and evidence.facts is not None
    events = evidence.of(Kind.BIO, Kind.BIO_END)
    at = next(n for n, e in enumerate(events) if e.kind is Kind.BIO_END and e.value == evidence.gate.reads[0].sector)
    events[at] = replace(events[at], token=errno)
    found = list(gate_problems(evidence.plan, evidence.gate, evidence.precondition, events, evidence.facts.swap_dev))
    assert [text.removeprefix("gate.json: ")[: len(w)] for text, w in zip(found, words, strict=True)] == words


def test_a_read_that_the_server_fails_fails() -> None:
    evidence = decode(packed_capture("explored-cut-off"))
    assert evidence.gate is not None and evidence.facts is not None
    events = evidence.of(Kind.BIO, Kind.BIO_END)
    healed = [replace(e, token=0) for e in events]
    first, second = (
        list(gate_problems(evidence.plan, evidence.gate, evidence.precondition, each, evidence.facts.swap_dev))
        for each in (events, healed)
    )
    assert first == []
    assert any("ended with no error" in text for text in second)
