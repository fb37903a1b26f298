# SPDX-License-Identifier: GPL-2.0-or-later
"""What the rules are told besides the trace: planted contradictions in real captures break exactly the rule."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from harness.contract.capture import MemoryLeft
from harness.contract.plan import Backing, Item, Op
from harness.contract.probe_abi import Record
from harness.evidence.decode import decode
from harness.evidence.guestlog import GuestRecord
from harness.judge.counted_faults import uncounted_faults, uncounted_pages
from harness.judge.rules_context import (
    _events_left,
    _lost_refaults,
    _lost_words,
    _memory_left,
    _misflagged,
    _of_others,
    _unlisted,
)
from harness.judge.token_slot import token_slots
from harness.judge.verdict import judge_capture
from harness.model.events import Kind
from harness.model.kernels import find_kernel
from harness.model.walk.flags import VmFault
from harness.status import Status
from tests.unit.judge.golden import Files, edit_trace, load
from tests.unit.judge.packed import packed_capture
from tests.unit.judge.test_verdict import change_json, model

Raw = dict[str, Any]


def _more(raw: Raw) -> None:
    raw["kvm"]["halt_exits"] += 1


def _prefetch_counted(raw: Raw) -> None:
    raw["kvm"]["pf_taken"] += 1


def _fewer_copies(raw: Raw) -> None:
    raw["anon_pages"] -= 1


def _dirty_tail(raw: Raw) -> None:
    raw["shared_tail_zero"]["0"] = False


def _clean_page(raw: Raw) -> None:
    next(iter(raw["pages"].values()))["dirty"] = False


def _elsewhere(raw: Raw) -> None:
    for record in raw["pages"].values():
        record["swap_offset"] += 100


@pytest.mark.parametrize(
    ("name", "file", "change", "rule"),
    [
        ("S61", "counters/after.json", _more, "D25"),
        ("S29", "precondition.json", _elsewhere, "D30"),
        ("S36", "counters/after.json", _prefetch_counted, "D35"),
        ("S36", "after.json", _dirty_tail, "D39"),
        ("S39", "counters/after.json", _fewer_copies, "D41"),
        ("S36", "after.json", _clean_page, "D43"),
    ],
)
def test_one_contradiction_breaks_one_rule(name: str, file: str, change: Callable[[Raw], None], rule: str) -> None:
    verdict = judge_capture(change_json(load(name), file, change), model())
    assert verdict.status is Status.FAIL
    assert {f.rule for f in verdict.findings} == {rule}


@pytest.mark.long
def test_an_interrupt_that_the_guest_did_not_handle() -> None:
    def twice(lines: list[str]) -> list[str]:
        last = max(i for i, line in enumerate(lines) if "kvm_apic_accept_irq" in line and "vec 243" in line)
        return [*lines[: last + 1], *lines[last:]]

    verdict = judge_capture(edit_trace(load("S36"), twice), model())
    assert "D16" in {f.rule for f in verdict.findings}


def test_rules_without_evidence_are_named() -> None:
    """A capture without after.json is not a pass of the rules that need it: they are not checked."""
    files: Files = {name: data for name, data in load("S36").items() if name != "after.json"}
    verdict = judge_capture(files, model())
    assert verdict.status is Status.PASS
    named = {unchecked.rule for unchecked in verdict.unchecked}
    assert {"D39", "D43"} <= named
    assert not {"D16", "D30"} & named


def test_an_interrupt_that_comes_when_the_program_has_ended_is_in_no_guests_count() -> None:
    """noio-6.1: the wake-all let the accesses end; the last token became ready while the vCPU halted with IF=0."""
    verdict = judge_capture(packed_capture("interrupt-after-the-end"), find_kernel("noio-6.1"))
    assert verdict.status is Status.PASS, verdict.reason


def _fewer_halts(raw: Raw) -> None:
    raw["kvm"]["halt_exits"] -= 2000


def test_a_vcpu_whose_halts_end_at_once_goes_on_after_the_trace() -> None:
    """debian-6.1, S10: the done list cannot be emptied, so HLT is a busy loop until QEMU ends; none may be missing."""
    files = packed_capture("halts-end-at-once")
    assert judge_capture(files, model()).status is Status.PASS
    verdict = judge_capture(change_json(files, "counters/after.json", _fewer_halts), model())
    assert {f.rule for f in verdict.findings} == {"D25"}


def test_a_token_that_the_guest_never_came_to_clear_is_still_there() -> None:
    """Its handler leaves tokens where they are; steps that would clear them count as far as they were performed."""
    evidence = decode(load("S29"))
    assert evidence.guest is not None
    plan, own = evidence.plan, evidence.guest.vcpus[0]
    apf = replace(plan.guest.apf, zero_token=False)
    clears = tuple(Item(len(plan.items) + n, Op.CLEAR_TOKEN) for n in range(2))
    plan = replace(plan, guest=replace(plan.guest, apf=apf), items=(*plan.items, *clears))
    ends = tuple(GuestRecord(Record.END, 0, 0, item.index, 0, 0) for item in clears)
    for records, still in ((own, True), ((*own, *ends[:1]), False), ((*ends, *own), True)):
        log = replace(evidence.guest, vcpus=(records,))
        taken = token_slots(replace(evidence, plan=plan, guest=log)).taken
        assert taken == (frozenset({0}) if still else frozenset())


def test_what_is_charged_and_on_no_list_is_left_behind() -> None:
    evidence, kernel = decode(packed_capture("acknowledged-late")), find_kernel("noio-6.1")
    assert _memory_left(replace(evidence, left=MemoryLeft(0, 0)), kernel) == 0, "of before"
    assert _memory_left(replace(evidence, left=MemoryLeft(0, 0, unlisted=2)), kernel) == 2
    assert _memory_left(replace(evidence, left=MemoryLeft(0, 0, cached=3)), kernel) == 3


def test_a_page_that_is_on_no_list_is_named() -> None:
    evidence = decode(packed_capture("read-then-written"))
    assert evidence.after is not None
    assert _unlisted(evidence) is None, "captured before anybody looked"
    some, *_ = (gpa for gpa, page in evidence.after.pages.items() if page.present)
    for listed, named in ((True, ()), (False, (some >> 12,))):
        pages = {**evidence.after.pages, some: replace(evidence.after.pages[some], on_list=listed)}
        assert _unlisted(replace(evidence, after=replace(evidence.after, pages=pages))) == named


def test_a_read_from_swap_that_is_no_refault_is_named() -> None:
    evidence, kernel = decode(packed_capture("read-then-written")), find_kernel("noio-6.1")
    for refaults, lost in ((3, 1), (4, 0), (5, 0)):
        moved = replace(evidence, counters={"PSWPIN": 3, "SWPIN_ZERO": 1, "REFAULT": refaults})
        found = _lost_refaults(moved, kernel)
        assert found is not None and len(found) == lost
    assert _lost_refaults(replace(evidence, counters={"PSWPIN": 3}), kernel) is None, "such a kernel tells nothing"


def test_a_call_that_the_cgroup_does_not_count_is_named() -> None:
    evidence, kernel = decode(packed_capture("read-then-written")), find_kernel("noio-6.1")
    calls = sum(not event.value & VmFault.RETRY for event in evidence.of(Kind.MM_FAULT_RET))
    assert calls
    for counted, lost in ((calls - 1, 1), (calls, 0), (calls + 1, 0)):
        found = uncounted_faults(replace(evidence, counters={"PGFAULT": counted}), kernel)
        assert found is not None and len(found) == lost
    assert uncounted_faults(replace(evidence, counters={}), kernel) is None
    assert uncounted_faults(replace(evidence, counters={"PGFAULT": 0}), find_kernel("nowait-5.10")) is None


def test_pages_that_the_host_does_not_count_are_named() -> None:
    evidence = decode(packed_capture("read-then-written"))
    assert evidence.facts is not None
    ours = replace(evidence, facts=replace(evidence.facts, has=replace(evidence.facts.has, emulated=True)))
    for lacking in (0, 3):
        found = uncounted_pages(replace(ours, counters={"FILE_LACKING": lacking}))
        assert found is not None and len(found) == (lacking > 0)
    assert uncounted_pages(replace(ours, counters={})) is None
    others = replace(evidence.facts, has=replace(evidence.facts.has, emulated=False))
    assert uncounted_pages(replace(ours, facts=others, counters={"FILE_LACKING": 3})) is None


@pytest.mark.parametrize(
    ("backing", "share", "swap_backed"),
    [(Backing.ANON, False, True), (Backing.MEMFD, True, True), (Backing.FILE, True, False)],
)
def test_a_page_that_is_not_up_to_date_or_of_another_kind_is_named(
    backing: Backing, share: bool, swap_backed: bool
) -> None:
    evidence = decode(packed_capture("read-then-written"))
    assert evidence.after is not None
    assert _misflagged(evidence) is None, "captured before anybody looked"
    plan = replace(evidence.plan, memory=replace(evidence.plan.memory, backing=backing, share=share))
    some, *_ = (gpa for gpa, page in evidence.after.pages.items() if page.present)
    for uptodate, backed, wrong in ((True, swap_backed, 0), (False, swap_backed, 1), (True, not swap_backed, 1)):
        page = replace(evidence.after.pages[some], uptodate=uptodate, swap_backed=backed)
        moved = replace(evidence, plan=plan, after=replace(evidence.after, pages={**evidence.after.pages, some: page}))
        assert len(_misflagged(moved) or ()) == wrong
    private = replace(plan, memory=replace(plan.memory, backing=Backing.FILE, share=False))
    assert not _misflagged(replace(moved, plan=private)), "a copy, or the file's"


def test_a_page_that_has_lost_what_was_written_when_it_comes_back_is_named() -> None:
    evidence = decode(packed_capture("read-then-written"))
    assert evidence.after is not None
    assert _lost_words(evidence) is None, "captured before anybody looked"
    some, *_ = (gpa for gpa, page in evidence.after.pages.items() if page.present)
    for again, lost in ((7, 0), (8, 1)):
        page = replace(evidence.after.pages[some], word=7, again=again)
        taken = replace(evidence, after=replace(evidence.after, pages={**evidence.after.pages, some: page}))
        assert len(_lost_words(taken) or ()) == lost


def test_an_event_that_l1_finds_in_its_vmcb_is_named() -> None:
    log = decode(packed_capture("nested-left-behind")).guest
    assert log is not None and _events_left(log) == ()
    records = list(log.vcpus[0])
    at = next(n for n, e in enumerate(records) if e.kind is Record.L2_WORDS)
    for inj, left in ((0x8000_00FF, 1), (0xFF, 0)):
        there = replace(records[at], b=records[at].b | inj << 32)
        moved = replace(log, vcpus=((*records[:at], there, *records[at + 1 :]), *log.vcpus[1:]))
        assert len(_events_left(moved)) == left


def test_a_page_that_is_charged_to_somebody_else_is_named() -> None:
    evidence = decode(packed_capture("read-then-written"))
    assert evidence.after is not None
    assert _of_others(evidence) is None, "captured before anybody looked"
    some, *_ = (gpa for gpa, page in evidence.after.pages.items() if page.present)
    for charged, named in ((True, ()), (False, (some >> 12,))):
        pages = {**evidence.after.pages, some: replace(evidence.after.pages[some], charged=charged)}
        assert _of_others(replace(evidence, after=replace(evidence.after, pages=pages))) == named


def test_a_ready_event_of_a_machine_that_stands_is_named() -> None:
    """The machine goes on later by the agent's steps than by the trace."""
    files = packed_capture("explored-cleared-by-paging")
    steps = [json.loads(line) for line in files["progress.jsonl"].splitlines()]
    ends = next(step["mono"] for step in steps if step["step"] == "collect")

    def judged(which: tuple[str, ...]) -> set[str]:
        late = [step | {"mono": ends} if step["step"] in which and step.get("do") == "cont" else step for step in steps]
        late.sort(key=lambda step: step["mono"])
        progress = "\n".join(map(json.dumps, late)).encode() + b"\n"
        return {f.rule for f in judge_capture({**files, "progress.jsonl": progress}, model()).findings}

    assert "D26" not in judged(())
    assert "D26" not in judged(("host-action-done",)), "it has been begun"
    assert "D26" in judged(("host-action", "host-action-done"))
