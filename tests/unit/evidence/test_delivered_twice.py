# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VMCB of an emulated processor says of an interrupt that it delivered again."""

from __future__ import annotations

import pytest

from harness.contract.kernel_trouble import Blame
from harness.evidence.delivered_twice import delivered_twice
from tests.unit.judge.golden import NAMES, load

ENTRY = "       CPU 0/KVM-203     [001] d..1.    50.603957: kvm_entry: vcpu 0, rip 0x4152c7\n"
EXIT = (
    "       CPU 0/KVM-203     [001] .....    50.606732: kvm_exit: vcpu 0 reason interrupt rip 0xffffffff81c00eb0"
    " info1 0x0000000000000000 info2 0x0000000000000000 intr_info {} error_code 0x00000000\n"
)


def test_an_exception_with_the_vector_of_an_interrupt() -> None:
    """As S111 of debian-6.1 had it on 2026-11-26, when its guest's kernel panicked."""
    found = delivered_twice((ENTRY + EXIT.format("0x000003ec")).encode())
    assert found is not None
    trouble, line = found
    assert trouble.blame is Blame.MACHINE
    assert "interrupt 0xec" in trouble.line
    assert "trace line 2" in trouble.line and line == 2
    assert not trouble.explains


def test_one_that_tells_of_no_page_leaves_what_went_as_predicted() -> None:
    found = delivered_twice((ENTRY + EXIT.format("0x000003ec")).encode(), {0xF3})
    assert found is not None and found[0].explains
    found = delivered_twice((ENTRY + EXIT.format("0x000003f3")).encode(), {0xF3})
    assert found is not None and not found[0].explains


@pytest.mark.parametrize(
    "info",
    [
        "0x00000000",
        "0x00000023",  # an interrupt, delivered
        "0x800000ec",  # an interrupt whose delivery met a nested page fault
        "0x80000b0e",  # a #PF with its error code, likewise
        "0x00000306",  # an #UD
        "0x00000202",  # an NMI
    ],
)
def test_what_a_processor_can_have_is_none(info: str) -> None:
    assert delivered_twice((ENTRY + EXIT.format(info)).encode()) is None


@pytest.mark.parametrize("name", NAMES)
def test_real_runs_have_none(name: str) -> None:
    assert delivered_twice(load(name)["trace/events.txt"]) is None
