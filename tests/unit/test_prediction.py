# SPDX-License-Identifier: GPL-2.0-or-later
"""How a plan is told to the model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.agent.ram.file import windows
from harness.contract.plan import PAGE_SIZE, RAM_FILE_DATA_AFTER, RAM_FILE_DATA_BEFORE
from harness.model.kernels import find_kernel
from harness.prediction import situation_of
from tests.unit.scenarios import all_scenarios, plan_of


@pytest.mark.parametrize(("value", "on"), [("N", False), ("0", False), ("Y", True), ("1", True)])
@pytest.mark.parametrize("kernel", ["nowait-5.10", "nowait-6.1"])
def test_a_parameter_says_whether_there_is_a_tdp_mmu(kernel: str, value: str, on: bool) -> None:
    """arch/x86/kvm/mmu/tdp_mmu.c:kvm_mmu_init_tdp_mmu; 5.10 has it off, 5.15 on."""
    plan, model = plan_of("S20"), find_kernel(kernel)
    assert situation_of(plan, model).kernel is model
    assert situation_of(replace(plan, kernel_params=(("kvm.tdp_mmu", value),)), model).kernel.tdp_mmu is on


FILES = [name for name in all_scenarios() if plan_of(name).memory.backing == "file"]


@pytest.mark.parametrize("name", FILES)
def test_the_model_has_the_data_of_a_ram_file_where_the_agent_writes_them(name: str) -> None:
    plan = plan_of(name)
    ram = situation_of(plan, find_kernel("nowait-6.1")).ram_file
    assert ram is not None
    written = windows(plan, RAM_FILE_DATA_BEFORE, RAM_FILE_DATA_AFTER)
    assert [(first * PAGE_SIZE, end * PAGE_SIZE) for first, end in ram.data] == written
