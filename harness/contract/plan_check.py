# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a plan that was read is one that scenarios make: what its types do not say, and whoever uses it relies on.

The judge's comes out of a capture, which may be damaged; the agent performs what it is given.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.contract.gate import rule_of
from harness.contract.host_program import HOST_PROGRAMS, cases
from harness.contract.plan import PAGE_SIZE, POOL_GPA, GuestKind, Op, Plan, from_json
from harness.contract.probe_abi import MAX_VCPUS
from harness.errors import UsageError

MAX_PAGE_CLUSTER = 6
"""64 pages in one window: the model goes through each of them."""


def read_checked_plan(text: str | bytes) -> Plan:
    """A plan of which nothing has to be asked again.

    :raise UsageError: it is none, or no scenario makes such a plan; the message says why.
    """
    plan = from_json(Plan, text)
    for problem in plan_problems(plan):
        raise UsageError(problem)
    return plan


def plan_problems(plan: Plan) -> Iterator[str]:
    """What no plan of a scenario has, in words."""
    guest = plan.guest
    if not 1 <= guest.vcpus <= MAX_VCPUS:
        yield f"{guest.vcpus} vCPUs, a guest has 1 to {MAX_VCPUS}"
    if not 0 <= plan.swap.page_cluster <= MAX_PAGE_CLUSTER:
        yield f"a page_cluster of {plan.swap.page_cluster}, it is 0 to {MAX_PAGE_CLUSTER}"
    try:
        rule_of(plan.swap)
        if guest.kind is GuestKind.HOST_PROGRAM:
            cases(guest.workload, guest.cmdline)
    except UsageError as exc:
        yield exc.message
    if guest.kind is GuestKind.HOST_PROGRAM and guest.workload not in HOST_PROGRAMS:
        yield f"a host program {guest.workload!r}"
    yield from _pages(plan)
    yield from _items(plan)


def _pages(plan: Plan) -> Iterator[str]:
    names, places = {page.name for page in plan.pages}, {page.gpa for page in plan.pages}
    if len(names) < len(plan.pages) or len(places) < len(plan.pages):
        yield "two pages with one name or at one place"
    for page in plan.pages:
        if page.gpa % PAGE_SIZE or not POOL_GPA <= page.gpa < plan.guest.memory_mib << 20:
            yield f"page {page.name} at {page.gpa:#x}, where the guest has no pool"
    for name in sorted({*plan.swap.error} - names):
        yield f"reads of {name!r}, which is no page, end with an error"


def _items(plan: Plan) -> Iterator[str]:
    places = {page.gpa for page in plan.pages}
    for number, item in enumerate(plan.items):
        if item.index != number:
            yield f"item {item.index} at place {number}"
        if not 0 <= item.vcpu < plan.guest.vcpus:
            yield f"item {number} is of vCPU {item.vcpu}, the guest has {plan.guest.vcpus}"
        if item.op is Op.TOUCH and item.gpa not in places:
            yield f"item {number} touches {item.gpa:#x}, where there is no page of the plan"
        if item.op is Op.HOST and not 0 <= item.value < len(plan.host_actions):
            yield f"item {number} asks for host actions {item.value:#x}, there are {len(plan.host_actions)}"
        if item.op is Op.AFTER and not 0 <= item.value < number:
            yield f"item {number} is after item {item.value:#x}, which is not before it"
