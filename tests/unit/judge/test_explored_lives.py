# SPDX-License-Identifier: GPL-2.0-or-later
"""Captures of sound kernels whose guest begins a life anew, or whose pages are read more than once."""

from __future__ import annotations

import pytest

from harness.judge.verdict import judge_capture
from harness.run.judge_folder import model_of
from harness.status import Status
from tests.unit.judge.packed import packed_capture

SETTLED = {
    "announced-before-queued": "a vCPU is preempted between a work's trace and schedule_work, so that another's work of"
    " the same page begins first (virt/kvm/async_pf.c:kvm_setup_async_pf; 7.3)",
    "read-for-a-later-fault": "what another process has read is reclaimed before the guest is told, and read by the"
    " vCPU's thread in the second fault of the access (7.3)",
    "timer-behind-an-init": "a vCPU that has its LAPIC's timer set is given an INIT: the guest sets it again (7.3)",
}


@pytest.mark.parametrize("name", SETTLED)
def test_a_sound_kernel_agrees(name: str) -> None:
    files = packed_capture(f"explored-{name}")
    verdict = judge_capture(files, model_of(files, "nowait"))
    assert verdict.status is Status.PASS, verdict.reason
