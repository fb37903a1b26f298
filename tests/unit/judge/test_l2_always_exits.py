# SPDX-License-Identifier: GPL-2.0-or-later
"""Where rule D48 holds: whether an interrupt for L1 ends its L2 whatever comes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.contract.plan import L2
from harness.judge.rules_context import _l2_always_exits
from harness.model.kernels import find_kernel
from tests.unit.scenarios import plan_of


@pytest.mark.parametrize(
    ("l2", "interrupts", "kernel", "rewritten", "exits"),
    [
        (L2(), False, "nowait-5.10", True, True),  # what masks is IF of L1
        (L2(l1_interrupts=False), True, "nowait-7.3", False, False),
        (L2(intercept_intr=False), True, "nowait-7.3", False, False),
        (L2(inject=True), True, "nowait-7.3", False, False),
        (L2(intr_masking=False), True, "nowait-7.3", False, True),
        (L2(intr_masking=False, l1_interrupts=False), True, "nowait-6.1", False, True),
        (L2(intr_masking=False), False, "nowait-7.3", False, False),
        (L2(intr_masking=False), True, "nowait-5.10", False, False),  # F4: L2's handler of what is L1's has IF off
        (L2(intr_masking=False), True, "nowait-7.3", True, False),  # F3
    ],
)
def test_what_masks_an_interrupt_of_l1(l2: L2, interrupts: bool, kernel: str, rewritten: bool, exits: bool) -> None:
    plan = plan_of("S130")
    items = tuple(replace(i, interrupts=interrupts) if i.level == 2 else i for i in plan.items)
    plan = replace(plan, guest=replace(plan.guest, l2=l2), items=items)
    assert _l2_always_exits(plan, find_kernel(kernel), rewritten=rewritten) is exits
