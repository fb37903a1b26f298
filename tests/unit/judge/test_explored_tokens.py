# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of sound kernels in which something comes between a token or a ready event and what is made of it."""

from __future__ import annotations

from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture


def test_a_page_is_ready_before_the_entry_that_delivers_its_token() -> None:
    """6.1: the thread is preempted behind kvm_async_pf_not_present until the page is there; the ready event comes
    before the entry whose delivery of the #PF finds its stack missing (arch/x86/kvm/x86.c:vcpu_enter_guest looks at its
    requests before kvm_check_and_inject_events).  S383."""
    files = packed_capture("explored-ready-before-the-token-is-told")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason


def test_a_page_is_written_between_its_writeback_and_its_reclaim() -> None:
    """5.10: the agent has a page written back, which cleans its PTE and takes KVM's mapping (mm/rmap.c:page_mkclean);
    its ready event maps it for reading, and the guest writes before it is unmapped and freed.  S370."""
    files = packed_capture("explored-written-while-it-is-reclaimed")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason


def test_a_program_acknowledges_before_the_agent_has_given_the_page() -> None:
    """6.1: no handler writes ACK, and what the program writes after a pause comes before a release that the agent is
    late with: nobody looks at the rest of the queue, and the program never ends.  Whether it does hangs on the two."""
    files = packed_capture("explored-acknowledged-too-early")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS and "never ends" in verdict.reason


def test_a_page_comes_before_the_handler_clears_the_word() -> None:
    """debian-7.3: a vCPU is preempted as it enters the ready interrupt's handler, which acknowledges nothing; KVM looks
    at the word for the next page before the handler has cleared it, and never again
    (arch/x86/kvm/x86.c:apf_pageready_slot_free)."""
    files = packed_capture("explored-word-cleared-by-a-handler")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason
