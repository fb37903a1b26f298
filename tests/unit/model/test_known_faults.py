# SPDX-License-Identifier: GPL-2.0-or-later
"""Known faults: each is a field that makes a difference, stands in the specification, and is shown by scenarios."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from harness.contract.plan import GuestKind
from harness.errors import ModelError
from harness.judge.fault_shown import run_with
from harness.model.kernels import KernelModel, find_kernel
from harness.model.known_faults import (
    KNOWN_FAULTS,
    KnownFault,
    find_kernel_with_fixes,
    known_fault,
    with_fixes,
    without_fix,
)
from tests.house.test_house import ROOT
from tests.unit.scenarios import all_scenarios, known_faults_of, plan_of

FAULTS = list(KNOWN_FAULTS.values())
SHOWN = [(fault, name) for fault in FAULTS for name in fault.scenarios]
N61 = find_kernel("nowait-6.1")
_NOT_IN_6_1 = dict.fromkeys(("F4", "F6", "F8"), find_kernel("nowait-5.10")) | {"F9": find_kernel("nowait-7.3")}


def faulty(fault: KnownFault) -> KernelModel:
    """A kernel that has it: 6.1, if that has."""
    return _NOT_IN_6_1.get(fault.id, N61)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda f: f.id)
def test_it_is_a_field_and_stands_in_the_specification(fault: KnownFault) -> None:
    assert fault.field in {f.name for f in fields(KernelModel)}
    page = (ROOT / "docs/spec/findings.md").read_text()
    assert re.search(rf"^## {fault.id}\. ", page, re.MULTILINE)
    kernel = faulty(fault)
    assert fault.in_kernel(kernel) and not fault.in_kernel(with_fixes(kernel, [fault.id]))


@pytest.mark.long
@pytest.mark.parametrize(("fault", "name"), SHOWN, ids=[f"{f.id}-{s}" for f, s in SHOWN])
def test_its_scenarios_show_it_on_a_faulty_kernel_and_not_on_a_fixed_one(fault: KnownFault, name: str) -> None:
    plan = plan_of(name)
    assert fault.only_by in run_with(plan) or plan.guest.kind is GuestKind.HOST_PROGRAM
    kernel = faulty(fault)
    assert fault.id in known_faults_of(name, kernel)[0]
    faults, ends = known_faults_of(name, with_fixes(kernel, [fault.id]))
    assert fault.id not in faults and ends


@pytest.mark.long
@pytest.mark.parametrize("kernel", sorted({faulty(fault).name for fault in FAULTS}))
def test_no_other_scenario_shows_one(kernel: str) -> None:
    faults = [fault for fault in FAULTS if faulty(fault).name == kernel]
    for name, scenario in all_scenarios().items():
        if {"lifecycle", "nested", "enablement"} & set(scenario.tags):
            others = {fault.id for fault in faults if name not in fault.scenarios}
            assert not others & known_faults_of(name, find_kernel(kernel))[0], name


def test_names() -> None:
    fixed = find_kernel_with_fixes("nowait-6.1+F1")
    assert fixed.name == "nowait-6.1+F1" and not fixed.reset_keeps_halt
    assert without_fix(fixed, "F1").reset_keeps_halt
    assert find_kernel_with_fixes("nowait-6.1") is N61
    for bad in ("nowait-6.1+F99", "nowait-6.1+", "nowait-0+F1"):
        with pytest.raises(ModelError):
            find_kernel_with_fixes(bad)
    with pytest.raises(ModelError, match="known: F1"):
        known_fault("F0")
