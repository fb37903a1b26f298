# SPDX-License-Identifier: GPL-2.0-or-later
"""A verdict in the light of the known faults of shipped kernels: one that is gone, one that is there after all.

A kernel that does not do what its model says may do just what the model says of a kernel with, or without, the fix of a
finding.  Then that is the news, not the divergence.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

from harness.contract.plan import GuestKind, Plan, names_a_hole, runs_l2, starts_anew
from harness.judge.verdict_types import Finding, KnownFaultRow, Verdict
from harness.model.kernels import KernelModel
from harness.model.known_faults import KNOWN_FAULTS, KnownFault, RunWith, with_fixes, without_fix
from harness.status import Status


def in_light_of_known_faults(
    verdict: Verdict,
    predicted: tuple[str, ...],
    kernel: KernelModel,
    judge_by: Callable[[KernelModel], Verdict],
    there: Collection[RunWith] = frozenset(RunWith),
) -> Verdict:
    """The verdict, with the finding first if another model of the kernel agrees with the evidence.

    :param predicted: ids of the faults that the kernel had to show.
    :param judge_by: the verdict about the same evidence by another model.
    :param there: what the run has that faults are shown by: by the model with a fault that is shown by something else
        it would be judged as before, at the same cost.
    """
    if verdict.status is not Status.FAIL:
        return verdict
    for fault in KNOWN_FAULTS.values():
        if fault.id in predicted and judge_by(with_fixes(kernel, (fault.id,))).status.as_predicted:
            return _told(verdict, fault, predicted=True, text=(
                f"finding {fault.id} is not reproduced any more: the kernel does what one with the fix does. Describe"
                f" it so (KernelModel.{fault.field} in kernel_changes.py, or fixes in kernels/catalog.toml), and take"
                " it out of the accepted findings"
            ))  # fmt: skip
        if (
            fault.only_by in there
            and not fault.in_kernel(kernel)
            and fault.id in judge_by(without_fix(kernel, fault.id)).shown_faults
        ):
            return _told(verdict, fault, predicted=False, text=(
                f"this is finding {fault.id}, of which the kernel is described as fixed: {fault.title}"
            ))  # fmt: skip
    return verdict


def run_with(plan: Plan) -> frozenset[RunWith]:
    """What a run of this plan, which is no program's that is its own VMM, has that faults are shown by."""
    has = {
        RunWith.RESET: starts_anew(plan) or plan.guest.kind is GuestKind.LINUX,  # which reboots as it likes
        RunWith.L2: runs_l2(plan),
        RunWith.HOLE: names_a_hole(plan),
    }
    return frozenset(what for what, there in has.items() if there)


def _told(verdict: Verdict, fault: KnownFault, *, predicted: bool, text: str) -> Verdict:
    row = KnownFaultRow(fault.id, predicted=predicted, shown=not predicted)
    return replace(
        verdict,
        reason=f"{text} (without that: {verdict.reason})",
        findings=(Finding(fault.id, text), *verdict.findings),
        known_faults=(row,),
    )
