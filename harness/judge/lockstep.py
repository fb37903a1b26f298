# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model has for the very run that was seen: predictions that follow its evidence step by step.

Where the evidence has what the choices are read from, each prediction is exact; a kernel agrees with the model if it
agrees with one of them.  Where it has not (a capture of before those events were recorded, a Linux guest, memory whose
place on the device is not known, a vCPU that is plugged in again), there is one prediction, with ranges, that stands
for all orders; where it has only some of it (vCPUs that race for a page of a synchronous device), there are both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from harness.contract.plan import (
    HostWord,
    Op,
    Plan,
    SwapKind,
    initialized,
    resets,
    resets_at_a_time,
    resetting_items,
    says,
)
from harness.contract.probe_abi import Record
from harness.contract.words import EndStatus
from harness.evidence.decode import Evidence
from harness.evidence.ram_page import ram_page
from harness.judge.recording import recording
from harness.judge.rules_context import places
from harness.model.events import Kind
from harness.model.kernels import KernelModel
from harness.model.simulation.choices import Distance
from harness.model.simulation.recorded import Recorded
from harness.model.simulation.simulate import Followed, follow
from harness.model.simulation.situation import Prediction
from harness.prediction import ORDERS, RAM_VPN, predict, situation_of


def predictions(
    evidence: Evidence,
    kernel: KernelModel,
    distance: Callable[[Followed], Distance] = lambda _: Distance(None),
    settled: Callable[[], bool] = lambda: False,
) -> Iterator[Followed]:
    """At least one.

    :param distance: how far one is from the evidence; called once for each before it comes.  It says where to look on.
    :param settled: whether the kernel is convicted whatever the order; called when the search would be at its end.
    :raise ModelError: the plan cannot be predicted for this kernel.
    """
    plan, facts, ram = (
        evidence.plan,
        evidence.precondition,
        ram_page(evidence.of(Kind.DONE, Kind.PF, Kind.MM_FAULT, Kind.ENTRY)) or RAM_VPN,
    )
    recorded = recording(evidence, places(evidence))
    if recorded is None or _boots_again(plan) or _never_reset(evidence, recorded):
        yield _told(_unfollowed(evidence, kernel, ram), distance)
        return
    if evidence.end.status is EndStatus.DONE:
        recorded = replace(recorded, ended_ns=recorded.end_ns)
    if not recorded.ends_known or races_unseen(plan):
        yield _told(_unfollowed(evidence, kernel, ram), distance)
    for followed in follow(situation_of(plan, kernel, facts, ram_vpn=ram), recorded, distance, settled):
        if followed.parted is None or recorded.ends_known:
            yield followed


def _unfollowed(evidence: Evidence, kernel: KernelModel, ram_vpn: int) -> Prediction:
    """What stands for all orders.  Where it has another end than the run, with every choice that a kernel is free in:
    whether a program comes to its end may hang by one of them."""
    plan, facts, status = evidence.plan, evidence.precondition, evidence.end.status
    found = predict(plan, kernel, facts, ram_vpn=ram_vpn)
    if found.ends is (status is EndStatus.DONE) or status not in (EndStatus.DONE, EndStatus.GUEST_TIMEOUT):
        return found
    return predict(plan, kernel, facts, ram_vpn=ram_vpn, orders=ORDERS)


def _told(prediction: Prediction, distance: Callable[[Followed], Distance]) -> Followed:
    followed = Followed(prediction, for_all_orders=True)
    distance(followed)
    return followed


def races_unseen(plan: Plan) -> bool:
    """Whether vCPUs race for pages without any event that tells who came first: a synchronous device (zram) ends a read
    inside do_swap_page, where neither its end nor the other vCPU's look at the page table is recorded."""
    if plan.swap.kind is not SwapKind.ZRAM:
        return False
    touches = {(item.vcpu, item.gpa) for item in plan.items if item.op is Op.TOUCH}
    return len(touches) > len({gpa for _, gpa in touches})


def _never_reset(evidence: Evidence, recorded: Recorded) -> bool:
    """Whether the run never came to the reset that it is about: what it waited for is no order of the kernel's.  A
    program that came to its end before the agent was to reset the machine waited for nothing, and one that has not
    begun the item that resets it waits for what stands before that, which is followed as in any other run."""
    plan = evidence.plan
    if evidence.end.status is EndStatus.DONE and all(action.do != HostWord.RESET for action in recorded.host):
        return False
    if not resets(plan) or any(mark.kind is Kind.CLEAR for marks in recorded.marks for mark in marks):
        return False
    begun = {entry.item for entry in evidence.guest.all() if entry.kind is Record.START} if evidence.guest else set()
    return resets_at_a_time(plan) or not begun.isdisjoint(resetting_items(plan))


def _boots_again(plan: Plan) -> bool:
    """Whether a vCPU boots again, and when it gets to its second program is in no event: one whose program begins
    without a write of INT or EN.  A snapshot goes on where it was taken."""
    apf = plan.guest.apf
    silent = not (apf.vector or apf.en_flags)
    return silent and (resets(plan) or bool(initialized(plan)) or says(plan, HostWord.PLUG))
