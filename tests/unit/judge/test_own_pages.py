# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of the probe guest's own are there, but for one that a write finds under writeback."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract.plan import SwapKind
from harness.evidence.decode import decode
from harness.judge.seen_once import SeenOnce
from harness.judge.unexplained import unexplained
from harness.model.outcomes import Outcome
from harness.prediction import predict
from harness.run.judge_folder import model_of
from tests.unit.judge.golden import recounted
from tests.unit.judge.packed import packed_capture

_WRITTEN = """\
    kworker/u6:1-30      [001] .....    43.583450: block_bio_queue: 43,0 W 280512 + 8 [kworker/u6:1]
     ksoftirqd/0-14      [000] ..s..    43.583460: block_rq_complete: 43,0 W () 280512 + 8 [0]
"""


@pytest.mark.parametrize(
    ("gone", "behind", "more"),
    [("kvm_unmap_hva_range", "", ""), ("block_bio_queue: 43,0 W", "", ""), ("-", "range: 0x007f72d6104000", _WRITTEN)],
)
def test_a_page_of_the_program_that_is_not_under_writeback_has_to_be_there(gone: str, behind: str, more: str) -> None:
    """Without the mmu notifiers of before; or without a write; or with an end of it before the guest's.

    The rule by itself: the whole verdict is held against some 170 orders, which takes minutes.
    """
    files = packed_capture("explored-waits-for-writeback")
    kept = []
    for line in files["trace/events.txt"].decode().splitlines():
        kept += [line] if gone == "-" or gone not in line else []
        kept += more.splitlines() if behind and behind in line else []
    lines, stats = recounted(kept, files["trace/stats.json"])
    trace = "".join(f"{line}\n" for line in lines).encode()
    evidence = decode({**files, "trace/events.txt": trace, "trace/stats.json": stats})
    kernel = model_of(files, "nowait")
    told = unexplained(SeenOnce(evidence, kernel).view(), predict(evidence.plan, kernel))
    assert any(f.about == "own page" for f in told)


def test_only_firmware_takes_a_page_of_a_userfaultfd_that_nobody_had() -> None:
    """Once each: a microvm has no firmware's threads, and what was there is not taken away."""
    files = packed_capture("explored-firmware-takes-a-new-page")
    evidence, kernel = decode(files), model_of(files, "noio")
    view, prediction = SeenOnce(evidence, kernel).view(), predict(evidence.plan, kernel)
    plan, own = view.plan, view.alignment.own
    blocked = next(e for e in own if view.outcome(e) is Outcome.BLOCK)
    again = replace(blocked, start=replace(blocked.start, t_ns=blocked.start.t_ns + 1))
    for other, wrong in (
        (view, False),
        (replace(view, plan=replace(plan, guest=replace(plan.guest, machine="microvm"))), True),
        (replace(view, plan=replace(plan, swap=replace(plan.swap, kind=SwapKind.GATED))), True),
        (replace(view, alignment=replace(view.alignment, own=(*own, again))), True),
    ):
        assert any(f.about == "own page" for f in unexplained(other, prediction)) is wrong
