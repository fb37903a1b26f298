# SPDX-License-Identifier: GPL-2.0-or-later
"""A swap device of which more than half is used."""

from __future__ import annotations

import pytest

from harness.contract import plan as p
from harness.model.kernels import find_kernel
from harness.prediction import predict

MIB_PAGES = 256


def read_and_written(kernel: str, swapped: int) -> int:
    """Faults of a write to the first page, which was read before; ``swapped``: pages on a device of 1 MiB."""
    pages = tuple(p.Page(p.POOL_GPA + n * p.PAGE_SIZE, p.PageStart.SWAPPED, f"f[{n}]") for n in range(swapped))
    items = tuple(
        p.Item(n, p.Op.TOUCH, gpa=p.POOL_GPA, page="f[0]", pause_us=900_000, interrupts=False, access=access)
        for n, access in enumerate((p.Access.READ, p.Access.WRITE))
    )
    plan = p.Plan(
        scenario="full", title="", nonce=7, guest=p.Guest(memory_mib=96), memory=p.Memory(),
        swap=p.Swap(p.SwapKind.DELAY, delay_ms=400, size_mib=1), items=items, pages=pages,
    )  # fmt: skip
    return predict(plan, find_kernel(kernel)).items[1].faults.low


@pytest.mark.parametrize(("swapped", "faults"), [(127, 2), (128, 1), (MIB_PAGES - 1, 1)])
def test_who_maps_a_page_frees_its_slot_when_more_than_half_are_used(swapped: int, faults: int) -> None:
    """5.10: its write copies a page that has a slot still, and the mmu notifier takes it from the guest."""
    assert read_and_written("nowait-5.10", swapped) == faults


@pytest.mark.parametrize("swapped", [127, MIB_PAGES - 1])
def test_a_page_that_is_mapped_writable_has_no_second_fault(swapped: int) -> None:
    assert read_and_written("nowait-6.12", swapped) == 0
