# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of situations that were invented: what stands in the shared area, who delivers, and whose lock it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract.probe_abi import Record, page_word
from harness.evidence.decode import decode
from harness.judge.rules_context import NOTHING, context_of
from harness.judge.verdict import judge_capture
from harness.model.kernels import find_kernel
from harness.status import Status
from tests.unit.judge.packed import packed_capture


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        # 7.3: 0xf3 was accepted behind the vCPU's own 0x42, whose gate was missing; its own gate is on that page
        ("explored-ready-interrupt-without-a-gate", "nowait-7.3"),
        # 6.12: two vCPUs asked for a page of shmem at once that was in the swap cache, and the first one slept
        ("explored-shmem-lock-of-another", "nowait-6.12"),
        # 6.12: a guest's own #PF, and exits of its L2, before the first token (S501)
        ("explored-flags-of-a-page-of-data", "nowait-6.12"),
    ],
)
def test_it_is_as_predicted(name: str, kernel: str) -> None:
    verdict = judge_capture(packed_capture(name), find_kernel(kernel))
    assert verdict.status is Status.PASS, verdict.reason


@pytest.mark.parametrize("kind", [Record.L2_WORDS, Record.PAGE_FAULT])
def test_what_a_page_held_is_no_flag_until_it_was_seen_to_be_gone(kind: Record) -> None:
    evidence = decode(packed_capture("explored-flags-of-a-page-of-data"))
    log, kernel = evidence.guest, find_kernel("nowait-6.12")
    assert log is not None and context_of(evidence, kernel, NOTHING).guest_flags == {0: ()}
    data = page_word(evidence.plan.guest.apf.en_gpa, evidence.plan.nonce) & 0xFFFFFFFF

    def found(flags: int, *, last: bool) -> tuple[str, ...]:
        """With these flags at the first, or the last, look of this kind."""
        at = [i for i, e in enumerate(log.vcpus[0]) if e.kind is kind and (kind is not Record.L2_WORDS or not e.a)]
        at = at[-1:] if last else [i for i, e in enumerate(log.vcpus[0]) if e.kind is kind][:1]
        records = list(log.vcpus[0])
        old = records[at[0]]
        records[at[0]] = replace(old, a=flags) if kind is Record.L2_WORDS else replace(old, b=flags)
        told = replace(evidence, guest=replace(log, vcpus=(tuple(records),)))
        return (context_of(told, kernel, NOTHING).guest_flags or {})[0]

    assert not found(data, last=False)
    assert "flags 0x1" in found(1, last=False)[0], "the host has made no token"
    assert "flags 0x1" in found(1, last=True)[0]
    assert found(data, last=True), "it was gone"
