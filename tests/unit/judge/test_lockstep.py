# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of real runs that the model follows step by step: whatever order the kernel chose is right, and whatever it
did besides is not."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from harness.evidence.decode import decode
from harness.judge.lockstep import predictions
from harness.judge.recording import recording
from harness.judge.rules_context import places
from harness.judge.verdict import judge_capture
from harness.model.kernels import KernelModel, find_kernel
from harness.model.outcomes import Outcome
from harness.model.simulation.choices import Choices
from harness.model.simulation.machine import run_once
from harness.model.simulation.replay import Diverged, Replay
from harness.prediction import situation_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture
from tests.unit.judge.test_verdict import Files, double, drop, edit, edit_trace

CAPTURES = Path(__file__).parents[2] / "data/captures-lockstep"
NAMES = sorted(p.name for p in CAPTURES.iterdir())
FOLLOWED = [name for name in NAMES if "+" in name]
DAMAGED = [pytest.param(name, marks=pytest.mark.long) if name.startswith("S79") else name for name in FOLLOWED]
"""Each damage of S79 is held against some 200 orders of its events."""


def load(name: str) -> Files:
    folder = CAPTURES / name
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def model(name: str) -> KernelModel:
    return find_kernel("noio-6.1" if name.endswith("noio-6.1") else "nowait-6.1")


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_kernel_passes(name: str) -> None:
    """S81-none-started: neither work had begun when EN=0 cancelled them, seen on a machine under load."""
    verdict = judge_capture(load(name), model(name))
    assert verdict.status is Status.PASS, verdict.findings


@pytest.mark.parametrize("name", FOLLOWED)
def test_one_run_is_followed_to_its_end(name: str) -> None:
    """Every total that the model has is one number, not a range, but for the counters of the whole host."""
    followed = next(predictions(decode(load(name)), model(name)))
    assert followed.parted is None
    ranges = {k for k, count in followed.prediction.totals.items() if count.low != count.high}
    assert ranges - {"PGMAJ_REST"} == {"PGMAJ_HOST"}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize(
    "change",
    [
        drop("kvm_async_pf_ready: token 0x1000"),
        drop("kvm_async_pf_not_present"),
        drop("kvm_async_pf_completed"),
        drop(r"kvm_inj_exception: #PF"),
        drop("kvm_try_async_get_page"),
        drop("kvm_page_fault: .*000100"),
        double("kvm_async_pf_ready: token 0x1000"),
        double("kvm_async_pf_not_present"),
        double("kvm_async_pf_completed"),
        double(r"kvm_page_fault: .*000100"),
        edit("ready: token 0x1000", "ready: token 0x2000"),
        edit("not_present: token 0x1000", "not_present: token 0x1001"),
    ],
)
def test_planted_damage_is_a_fail(name: str, change: Callable[[list[str]], list[str]]) -> None:
    if name.startswith("S81"):  # its first tokens are cancelled, and have no ready event
        change = _with_third_token(change)
    assert judge_capture(edit_trace(load(name), change), model(name)).status is Status.FAIL


def _with_third_token(change: Callable[[list[str]], list[str]]) -> Callable[[list[str]], list[str]]:
    def changed(lines: list[str]) -> list[str]:
        try:
            return change(lines)
        except StopIteration:
            return drop("kvm_async_pf_ready: token 0x[34]000")(lines)

    return changed


def after(pattern: str, *new: str) -> Callable[[list[str]], list[str]]:
    """Lines of the same thread and time behind the first that matches."""

    def change(lines: list[str]) -> list[str]:
        at = next(i for i, x in enumerate(lines) if re.search(pattern, x))
        head = re.match(r"^.*\[\d+\] \S+ +\d+\.\d+: ", lines[at])
        assert head is not None
        return [*lines[: at + 1], *(head[0] + text for text in new), *lines[at + 1 :]]

    return change


def test_a_prefetch_that_fails_has_no_excuse_on_one_vcpu() -> None:
    """The guest faults again on the page whose ready event came: nothing had come between, so that is no choice."""
    page = "0x0000000001008000"
    again = after(
        r"kvm_msr: msr_write 4b564d07 = 0x1.*",
        "kvm_entry: vcpu 0, rip 0x102d73",
        "kvm_exit: vcpu 0 reason npf rip 0x101134 info1 0x0000000100000004 info2 0x0 intr_info 0x0 error_code 0x0",
        f"kvm_page_fault: vcpu 0 rip 0x101134 address {page} error_code 0x100000004",
    )

    def change(lines: list[str]) -> list[str]:
        at = next(i for i, x in enumerate(lines) if "kvm_async_pf_ready: token 0x1000" in x)
        return lines[:at] + again(lines[at:])

    verdict = judge_capture(edit_trace(load("S30+noio-6.1"), change), model("S30+noio-6.1"))
    assert verdict.status is Status.FAIL


@pytest.mark.parametrize("name", FOLLOWED)
def test_a_read_that_has_not_ended_gives_no_page(name: str) -> None:
    """Without the ends of all reads nothing can have been completed."""

    def change(lines: list[str]) -> list[str]:
        return [x for x in lines if "block_bio_complete" not in x]

    assert judge_capture(edit_trace(load(name), change), model(name)).status is Status.FAIL


def test_what_cannot_be_followed_is_not() -> None:
    """A capture without host page faults, or of pages whose place is not known, is judged by all orders at once."""
    files = load("S79+noio-6.1")
    evidence = decode(files)
    assert recording(evidence, places(evidence)) is not None
    assert recording(evidence, None) is None
    assert evidence.facts is not None
    events = tuple(event for event in evidence.facts.trace_events if event != "apf/mm_fault")
    blind = replace(evidence, facts=replace(evidence.facts, trace_events=events))
    assert recording(blind, places(blind)) is None


@pytest.mark.parametrize("name", ["reset-followed", "zram-race"])
def test_what_no_event_tells_is_judged_by_all_orders(name: str) -> None:
    """noio-6.1: a second boot, and two vCPUs that race for pages of zram: green, though no single order is known."""
    assert judge_capture(packed_capture(name), find_kernel("noio-6.1")).status is Status.PASS


def test_what_a_later_fault_came_to_is_held_against_the_model() -> None:
    """The access that is resumed finds the page in the host's page table; here it needs handle_mm_fault for it."""
    files, kernel = load("S81+debian-6.1"), model("S81+debian-6.1")
    lines = files["trace/events.txt"].decode().splitlines()
    row = next(r for r in judge_capture(files, kernel).items if Outcome.FAST in r.seen[1:])
    item = decode(files).plan.items[row.index]
    hva = next(x for x in lines if f"kvm_async_pf_completed: gva {item.gpa:#x} " in x).split("address ")[1].strip()
    faults = [n for n, x in enumerate(lines) if f"kvm_page_fault: vcpu {item.vcpu} " in x and f"{item.gpa:#018x}" in x]
    calls = after(
        "kvm_page_fault",
        f"mm_fault: (handle_mm_fault+0x0/0x2d0) addr={hva} flags=0x1c",
        "mm_fault_ret: (__get_user_pages+0x1ea/0x660 <- handle_mm_fault) ret=0x100",
    )

    def change(lines: list[str]) -> list[str]:
        return lines[: faults[-1]] + calls(lines[faults[-1] :])

    verdict = judge_capture(edit_trace(files, change), kernel)
    assert verdict.status is Status.FAIL
    assert any(f.item == row.index and f.about == "later" for f in verdict.findings), verdict.findings


def test_a_page_may_be_mapped_well_before_its_ready_event() -> None:
    """The machine took the processor away between kvm_arch_async_page_ready and its event: another vCPU used the page.

    The capture is of a synchronous device, whose vCPUs are not followed; here they are.
    """
    evidence, kernel = decode(packed_capture("zram-mapped-early")), model("noio-6.1")
    recorded = recording(evidence, places(evidence))
    assert recorded is not None
    situation = situation_of(evidence.plan, kernel, evidence.precondition)
    with pytest.raises(Diverged, match="fault on 0x11c0000"):
        run_once(situation, Replay(recorded, Choices()))
    early = ("whether 0x11c0 was mapped well before its ready event", 0)
    run_once(situation, Replay(recorded, Choices({early: 1})))


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        # The thread was held up between the exit of its acknowledgement and the look at the done list.
        ("acknowledged-late", "noio-6.1"),
        # A kworker whose name the kernel had forgotten ("<...>"): the 27th run of a host.
        ("names-forgotten", "noio-6.1"),
        # ack_first: nobody looks at the done list once the token's word is zero again.
        ("word-never-free", "nowait-6.1"),
        # A shadow page table's neighbours are filled, so that L2 need not fault again on f[4].
        ("nested-neighbours", "nowait-7.3"),
        # UFFDIO_COPY came 14 ms after the agent had decided on it.
        ("copied-later", "nowait-6.1"),
        # 822 repeated faults: a halt that ends at once, as long as done is stuck.
        ("spins", "nowait-7.3"),
    ],
)
def test_what_an_outsider_and_a_crowd_met(name: str, kernel: str) -> None:
    verdict = judge_capture(packed_capture(name), find_kernel(kernel))
    assert verdict.status is Status.PASS, verdict.findings


def test_a_stop_does_not_return_while_a_vcpu_sleeps_on_a_frozen_read() -> None:
    """An outsider's plan: the thaw is behind the stop, so neither comes; what was not performed is not followed."""
    verdict = judge_capture(packed_capture("stop-never-returns"), find_kernel("nowait-6.1"))
    assert verdict.status is Status.PASS, verdict.findings
    assert "the model says that the program never ends (items 4, 5, 6, 7)" in verdict.reason
