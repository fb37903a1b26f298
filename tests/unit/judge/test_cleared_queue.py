# SPDX-License-Identifier: GPL-2.0-or-later
"""S84 on 6.12.43, which clears its queue when CR0.PG changes: a work whose worker runs is waited for, and completes.

virt/kvm/async_pf.c:kvm_clear_async_pf_completion_queue: cancel_work_sync() takes what has not begun from the workqueue,
and sleeps until the other has finished.  The trace has async_pf_execute begun 6 ms before the write of CR0.
"""

from __future__ import annotations

from pathlib import Path

from harness.judge.verdict import judge_capture
from harness.model.kernels import kernel_for
from harness.run.judge_folder import model_of, read_capture
from harness.status import Status
from tests.unit.judge.golden import edit_trace
from tests.unit.judge.test_verdict import drop

CAPTURE = Path(__file__).parents[2] / "data/captures-cleared/S84"


def test_a_work_that_had_begun_completes_and_never_becomes_ready() -> None:
    files = read_capture(CAPTURE)
    kernel = model_of(files, "nowait")
    assert kernel == kernel_for("nowait", "6.12.43") and kernel.cr0_pg_clears_queue
    verdict = judge_capture(files, kernel)
    assert verdict.status is Status.PASS, verdict.findings
    assert (verdict.total("DONE"), verdict.total("RDY")) == (1, 0)


def test_a_completion_that_is_missing_is_noticed() -> None:
    files = edit_trace(read_capture(CAPTURE), drop("kvm_async_pf_completed"))
    assert judge_capture(files, model_of(files, "nowait")).status is Status.FAIL
