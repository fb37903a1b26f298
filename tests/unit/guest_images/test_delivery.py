# SPDX-License-Identifier: GPL-2.0-or-later
"""Touches whose access the processor makes when it delivers an event, under plain QEMU without async page faults."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path

from harness.agent.pages.page_content import planned_content
from harness.contract.plan import Access, By, Item, Op
from tests.unit.agent.conftest import make_plan
from tests.unit.guest_images import probe_rig as rig
from tests.unit.guest_images.probe_rig import INTERRUPTS, NONCE, POOL, Step, encode_items, start_guest


def test_the_page_is_the_stack_of_the_event_or_the_idt(probe_elf: Path, tmp_path: Path) -> None:
    """What the delivery of an event pushes lies at the end of the page; gates are read from what the agent wrote."""
    kinds = [(by, cpl, write) for by, cpl, write in product((1, 2), (3, 0), (True, False))]
    kinds += [(rig.BY_NMI, 0, write) for write in (True, False, True)]  # an NMI ends the masking of the one before
    steps = [
        Step(rig.TOUCH, gpa=POOL + 4096 * n, cpl=cpl, by=by, write=write) for n, (by, cpl, write) in enumerate(kinds)
    ]
    items = tuple(
        Item(n, Op.TOUCH, gpa=step.gpa, access=Access.WRITE if step.write else Access.READ, by=By.INTERRUPT)
        for n, step in enumerate(steps)
    )
    steps.append(Step(rig.TOUCH, gpa=POOL + 4096 * len(steps)))  # and all is as before
    plan = replace(make_plan(pages=0), items=items)
    with start_guest(probe_elf, tmp_path, encode_items(steps)) as guest:
        guest.wait_state(rig.READY)
        for item in items:
            content = planned_content(plan, item.gpa)
            for at in range(0, 4096, 8):
                guest.put64(item.gpa + at, int.from_bytes(content[at : at + 8], "little"))
        log = guest.run()
        for n, step in enumerate(steps[:-1]):
            end = next(r for r in log if (r.kind, r.item) == (rig.END, 100 + n))
            word = int.from_bytes(planned_content(plan, step.gpa)[:8], "little")
            assert (end.a, end.b) == ((step.gpa ^ NONCE) if step.write else word, 0)
            pushed = guest.u64(step.gpa + 4096 - 8)  # SS
            old = int.from_bytes(planned_content(plan, step.gpa)[-8:], "little")
            assert (pushed != old) is step.write, step
            if step.write and step.cpl == 3:
                assert pushed & 3 == 3
        assert not [r for r in log if r.kind in (rig.FAULT, rig.IRQ)]
        assert (log[-1].kind, log[-1].b) == (rig.DONE_REC, len(steps))


def test_a_token_that_does_not_come_is_an_exception(probe_elf: Path, tmp_path: Path) -> None:
    """The stack of the touch before is the usual one again, whatever its access was told."""
    steps = [
        Step(rig.TOUCH, gpa=POOL, flags=INTERRUPTS),
        Step(rig.TOUCH, gpa=POOL + 4096, by=rig.BY_TOKEN, write=True),
        Step(rig.TOUCH, gpa=POOL + 8192),
    ]
    with start_guest(probe_elf, tmp_path, encode_items(steps)) as guest:
        guest.wait_state(rig.READY)
        log = guest.run()
        assert [r.item for r in log if r.kind == rig.END] == [100, 101, 102]
        assert guest.u64(POOL + 4096 + 4096 - 8) & 3 == 3
        assert guest.u64(POOL + 4096 - 8) == 0
