# SPDX-License-Identifier: GPL-2.0-or-later
"""A page that was read past the swap cache, and may have a second reference, of a CPU's batch for the LRU lists."""

from __future__ import annotations

import pytest

from harness.contract import plan as p
from harness.model.kernels import find_kernel
from harness.model.outcomes import Count
from harness.prediction import predict


def written_after_its_read(kernel: str, kind: p.SwapKind) -> Count:
    """Faults of a write to a page that was read before, on a device of that kind."""
    pages = tuple(p.Page(p.POOL_GPA + n * p.PAGE_SIZE, p.PageStart.SWAPPED, f"f[{n}]") for n in range(4))
    items = tuple(
        p.Item(n, p.Op.TOUCH, gpa=p.POOL_GPA, page="f[0]", pause_us=900_000, interrupts=False, access=access)
        for n, access in enumerate((p.Access.READ, p.Access.WRITE))
    )
    plan = p.Plan(
        scenario="batch", title="", nonce=7, guest=p.Guest(memory_mib=96), memory=p.Memory(),
        swap=p.Swap(kind, delay_ms=400 if kind is p.SwapKind.DELAY else 0), items=items, pages=pages,
    )  # fmt: skip
    return predict(plan, find_kernel(kernel)).items[1].faults


def test_5_10_reuses_a_page_of_zram_or_copies_it() -> None:
    """page_count decides (mm/memory.c:do_wp_page), and how many pages the CPU has read since nobody knows."""
    faults = written_after_its_read("nowait-5.10", p.SwapKind.ZRAM)
    assert (faults.low, faults.high) == (1, 2) and "batch" in faults.reason


@pytest.mark.parametrize(
    ("kernel", "kind", "faults"),
    [("nowait-5.10", p.SwapKind.DELAY, 2), ("nowait-6.1", p.SwapKind.ZRAM, 1), ("nowait-6.12", p.SwapKind.ZRAM, 0)],
)
def test_elsewhere_no_batch_matters(kernel: str, kind: p.SwapKind, faults: int) -> None:
    """The swap cache has a reference of its own; later kernels have PageAnonExclusive, or map it writable."""
    seen = written_after_its_read(kernel, kind)
    assert (seen.low, seen.high) == (faults, faults)
