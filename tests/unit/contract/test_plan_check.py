# SPDX-License-Identifier: GPL-2.0-or-later
"""Every plan of the catalogue is accepted; one that was damaged where its types still hold is not."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from harness.contract.plan import GuestKind, Op, Plan, to_json
from harness.contract.plan_check import plan_problems, read_checked_plan
from harness.errors import UsageError
from harness.run.scenario_sources import default_scenarios, read_scenario_files
from harness.scenario.build import build_plan

PLANS = [build_plan(scenario, 1) for scenario in read_scenario_files([default_scenarios()]).scenarios]


def test_plans_of_scenarios_have_none() -> None:
    assert {plan.scenario: list(plan_problems(plan)) for plan in PLANS if list(plan_problems(plan))} == {}
    assert read_checked_plan(to_json(PLANS[0])) == PLANS[0]


@pytest.fixture(scope="module")
def gated() -> Plan:
    """Has pages, touches and host actions behind a gated device, of one vCPU or more."""
    return next(p for p in PLANS if p.pages and p.host_actions and any(i.op is Op.TOUCH for i in p.items))


@pytest.mark.parametrize(
    ("path", "value", "says"),
    [
        (("guest", "vcpus"), 0, "0 vCPUs, a guest has 1 to 16"),
        (("guest", "vcpus"), 1 << 70, "vCPUs, a guest has"),
        (("guest", "memory_mib"), -1, "where the guest has no pool"),
        (("swap", "page_cluster"), 1 << 70, "page_cluster"),
        (("swap", "page_cluster"), -1, "page_cluster"),
        (("swap", "release"), "npx", "'npx' is not one of"),
        (("swap", "release"), "np:0", "a count goes with"),
        (("swap", "error"), ["nobody[0]"], "which is no page, end with an error"),
        (("pages", 0, "gpa"), 0x123, "where the guest has no pool"),
        (("pages", 0, "gpa"), None, "touches"),
        (("pages", 0), None, "touches"),
        (("items", 0, "index"), 7, "item 7 at place 0"),
        (("items", 0, "vcpu"), 16, "is of vCPU 16"),
        (("host_actions",), [], "asks for host actions"),
    ],
)
def test_what_no_scenario_makes(gated: Plan, path: tuple[str | int, ...], value: Any, says: str) -> None:
    """``value`` None: of pages, another place than the one that is touched, or no such page."""
    raw = json.loads(to_json(gated))
    target = raw
    for key in path[:-1]:
        target = target[key]
    if value is None and path[-1] == "gpa":
        value = max(page["gpa"] for page in raw["pages"]) + 4096
    if value is None:
        del target[path[-1]]
    else:
        target[path[-1]] = value
    with pytest.raises(UsageError, match=says):
        read_checked_plan(json.dumps(raw))


@pytest.mark.parametrize("other", ["itself", -1, 1 << 64])
def test_an_item_is_after_one_before_it(other: int | str) -> None:
    plan = next(p for p in PLANS if any(i.op is Op.AFTER for i in p.items))
    at = next(n for n, i in enumerate(plan.items) if i.op is Op.AFTER)
    other = at if isinstance(other, str) else other
    items = (*plan.items[:at], replace(plan.items[at], value=other), *plan.items[at + 1 :])
    assert f"item {at} is after item {other:#x}, which is not before it" in list(
        plan_problems(replace(plan, items=items))
    )


def test_two_pages_of_one_name(gated: Plan) -> None:
    twice = replace(gated, pages=(*gated.pages, gated.pages[0]))
    assert "two pages with one name or at one place" in list(plan_problems(twice))


def test_a_host_program_and_its_arguments() -> None:
    plan = next(p for p in PLANS if p.guest.kind is GuestKind.HOST_PROGRAM)
    unknown = replace(plan, guest=replace(plan.guest, workload="fish"))
    assert list(plan_problems(unknown))
    assert list(plan_problems(replace(plan, guest=replace(plan.guest, cmdline="fish"))))
