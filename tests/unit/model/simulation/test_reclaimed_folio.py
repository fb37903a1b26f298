# SPDX-License-Identifier: GPL-2.0-or-later
"""Reclaim of one page of a large folio of the page cache."""

from __future__ import annotations

import pytest

from harness.contract import plan as p
from harness.model.kernels import find_kernel
from harness.model.outcomes import Outcome
from harness.prediction import predict


def _gpa(number: int) -> int:
    return p.POOL_GPA + number * p.PAGE_SIZE


@pytest.mark.parametrize(("kernel", "neighbour"), [("nowait-7.3", Outcome.MINOR), ("nowait-6.12", Outcome.NONE)])
def test_its_other_pages_stay_and_nobody_has_them_mapped(kernel: str, neighbour: Outcome) -> None:
    """f[48] has the marker: what is read ahead there comes in large folios, of which f[60] and f[61] are in one, and
    f[64] in the next.  It is split before f[60] leaves it (mm/huge_memory.c:unmap_folio).  6.12: each page its own."""
    pages = tuple(p.Page(_gpa(n), p.PageStart.DROPPED, f"f[{n}]") for n in range(160))
    touched = (40, 48, 61, 64, -1, 61, 64, 60)
    items = tuple(
        p.Item(i, p.Op.TOUCH, gpa=_gpa(n), page=f"f[{n}]", pause_us=900_000) if n >= 0 else p.Item(i, p.Op.HOST)
        for i, n in enumerate(touched)
    )
    plan = p.Plan(
        scenario="folio", title="", nonce=7, guest=p.Guest(memory_mib=96),
        memory=p.Memory(backing=p.Backing.FILE, share=True), swap=p.Swap(p.SwapKind.DELAY, delay_ms=200),
        items=items, pages=pages, host_actions=((p.HostAction(p.HostWord.RECLAIM, _gpa(60)),),),
    )  # fmt: skip
    found = [item.outcome for item in predict(plan, find_kernel(kernel)).items]
    assert found[2:4] == [Outcome.MINOR, Outcome.MINOR]
    assert found[5:] == [neighbour, Outcome.NONE, Outcome.TOKEN]
