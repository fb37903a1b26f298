# SPDX-License-Identifier: GPL-2.0-or-later
"""How a plan is told to the model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from harness.agent.ram.file import windows
from harness.contract.plan import PAGE_SIZE, RAM_FILE_DATA_AFTER, RAM_FILE_DATA_BEFORE
from harness.model.kernels import find_kernel
from harness.model.outcomes import UNBOUNDED
from harness.prediction import predict, situation_of
from harness.scenario.build import build_plan
from harness.scenario.load import load_text
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


@pytest.mark.parametrize(
    ("kernel", "start", "zswap", "ends"),
    [
        ("nowait-6.1", "swapped", True, True),
        ("nowait-6.1", "swapped", False, False),
        ("nowait-6.12", "zero-swapped", False, True),
        ("nowait-6.1", "zero-swapped", False, False),
    ],
)
def test_a_read_that_asks_no_device_does_not_fail(kernel: str, start: str, zswap: bool, ends: bool) -> None:
    """zswap (mm/page_io.c:swap_readpage, frontswap_load) and the zero map (swap_read_folio_zeromap) answer it."""
    text = f"""
id = "A"
title = "a page whose read would fail"
{'kernel_params = { "zswap.enabled" = "Y" }' if zswap else ""}
[swap]
page_cluster = 0
error = ["f[0]"]
[pages.f]
groups = 2
start = "{start}"
[[steps]]
touch = "f"
then = "wait"
"""
    (scenario,) = load_text("a.toml", text)
    assert predict(build_plan(scenario, nonce=1), find_kernel(kernel)).ends is ends


@pytest.mark.parametrize("kernel", ["nowait-5.10", "nowait-6.1", "nowait-6.12", "noio-6.1"])
def test_an_l2_whose_l1_is_told_nothing_goes_round_for_ever_over_a_page_that_cannot_be_read(kernel: str) -> None:
    """With F2 or F4 each round ends in what L1 is not told: it is a round all the same (it was no answer at all)."""
    text = """
id = "a"
title = "t"
deadline_s = 30
[apf]
en_flags = 13
[swap]
page_cluster = 1
error = ["f[0]"]
[pages.f]
groups = 1
start = "swapped"
[pages.g]
groups = 1
start = "untouched"
[[steps]]
touch = "f"
level = 2
"""
    (scenario,) = load_text("a.toml", text)
    answer = predict(build_plan(scenario, nonce=1), find_kernel(kernel))
    assert not answer.ends
    assert answer.totals["NP"].high == answer.items[0].faults.high == UNBOUNDED
