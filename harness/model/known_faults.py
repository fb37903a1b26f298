# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of kernels as they are shipped that this harness found (docs/spec/findings.md), as the model knows them.

Each is a field of KernelModel: a kernel that has the fault is predicted to show it, and the prediction names it.  A
kernel with the fix has the other value, by kernel_changes.py once a release has the fix, by ``fixes`` of its entry in
kernels/catalog.toml until then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import StrEnum

from harness.errors import ModelError
from harness.model.kernels import KernelModel, find_kernel


class RunWith(StrEnum):
    """What a run has, without which the model with a fault does as the model without it."""

    RESET = "a vCPU that loses its state"
    L2 = "a guest that runs guests"
    PROGRAM = "a program that is its own VMM"  # harness/contract/host_program.py
    HOLE = "a write of EN that names an address without memory"


@dataclass(frozen=True, slots=True)
class KnownFault:
    """One of them.

    :ivar id: "F1", as docs/spec/findings.md and docs/findings.md number it.
    :ivar title: what it does, in a sentence without a full stop.
    :ivar field: of KernelModel, which tells a kernel with the fault from one with the fix.
    :ivar scenarios: those that show it.
    :ivar warns: what the kernel under test then says in its log, as part of a line; empty: nothing.
    :ivar faulty: the field's value in a kernel with the fault.
    :ivar only_by: what is in each run that can show it.
    """

    id: str
    title: str
    field: str
    only_by: RunWith
    scenarios: tuple[str, ...]
    warns: str = ""
    faulty: bool = True

    def in_kernel(self, kernel: KernelModel) -> bool:
        """Whether this kernel is described as having the fault."""
        return getattr(kernel, self.field) is self.faulty


_TOKENS_OF_AN_L2 = (
    "S130", "S131", "S134", "S135", "S136", "S137", "S138", "S139", "S146", "S147", "S190", "S191", "S193", "S195",
    "S277", "S308", "S341", "S445", "S491",
)  # fmt: skip
"""Scenarios in which an L2 touches missing pages of an L1 that does not intercept #PF."""

KNOWN_FAULTS = {
    fault.id: fault
    for fault in (
        KnownFault(
            "F1",
            "a reset during an artificial halt wedges the vCPU: apf.halted stays set when the ready event that would"
            " end the halt is dropped, and KVM_RUN blocks for ever",
            "reset_keeps_halt",
            RunWith.RESET,
            (
                "S109",
                "S109G",
                "S115",
                "S116",
                "S117",
                "S148",
                "S154",
                "S178/en_flags=0",
                "S183/en_flags=9",
                "S183/en_flags=0",
                "S184",
                "S191",
            ),
        ),
        KnownFault(
            "F2",
            "an asynchronous page fault of an L2 is lost, and flags = 1 left behind in L1's shared area: the #PF exit"
            " is queued without KVM_REQ_EVENT, and the next exit of L2 wipes it",
            "vmexit_needs_request",
            RunWith.L2,
            (*_TOKENS_OF_AN_L2, "S132", "S453", "S466"),
        ),
        KnownFault(
            "F3",
            "a state read by the VMM makes an asynchronous #PF exit of an L2 a #PF inside L2, and leaves flags = 1"
            " behind in L1's shared area",
            "sync_loses_vmexit",
            RunWith.L2,
            ("S134", "S190"),
        ),
        KnownFault(
            "F4",
            "an asynchronous #PF goes into the L2 of an L1 that does not intercept #PF (AMD), and flags = 1 stays"
            " behind in L1's shared area",
            "needs_pf_intercept",
            RunWith.L2,
            _TOKENS_OF_AN_L2,  # in S132, S453 and S466 L1 intercepts #PF
        ),
        KnownFault(
            "F6",
            "an INIT for a vCPU whose L2 runs (AMD) ends guest mode, and the vCPU goes on with the tables of its L2:"
            " the next VMRUN makes the host warn",
            "init_keeps_l2_tables",
            RunWith.L2,
            ("S192", "S193"),
            warns="nested_prepare_vmcb_control",
        ),
        KnownFault(
            "F7",
            "an L2 that L1 runs with its own interrupts masked (AMD) is given interrupt 0, which nobody sent, when one"
            " is pending for L1: the virtual interrupt by which KVM asks for a window is not intercepted",
            "window_is_l2s",
            RunWith.L2,
            ("S196",),
        ),
        KnownFault(
            "F8",
            "an L2 (AMD) executes nothing while an interrupt is pending for an L1 that intercepts interrupts and has"
            " its own masked: KVM asks for an exit at once at each entry",
            "masked_interrupt_spins",
            RunWith.L2,
            ("S196",),
        ),
        KnownFault(
            "F9",
            "a vCPU that was kicked before its HLT sleeps there for good: a ready event that it was told of in between"
            " has cleared pv_unhalted",
            "ready_clears_kick",
            RunWith.PROGRAM,
            ("S435/cmdline=cpl0 kick-told", "S435/cmdline=repeated kick-told"),
        ),
        KnownFault(
            "F10",
            "a kick in an artificial halt ends every halt of the vCPU until it executes HLT: it asks for its page again"
            " and again, and takes a processor for that",
            "kick_ends_halts",
            RunWith.PROGRAM,
            ("S436",),
        ),
        KnownFault(
            "F11",
            "a guest whose first EN names an address without memory makes its host warn: the refused value is stored,"
            " and the cache of the shared area, which has no length, is used",
            "en_needs_shared_area",
            RunWith.HOLE,
            ("S442",),
            warns="_guest_offset_cached",
            faulty=False,
        ),
    )
}
"""By id."""


def known_fault(name: str) -> KnownFault:
    """The fault with this id.

    :raise ModelError: there is none.
    """
    if name not in KNOWN_FAULTS:
        raise ModelError(f"there is no finding {name!r}", hint=f"known: {', '.join(KNOWN_FAULTS)}")
    return KNOWN_FAULTS[name]


def with_fixes(kernel: KernelModel, fixes: Iterable[str]) -> KernelModel:
    """The same kernel with the fixes of these findings; its name says so ("nowait-6.1+F1").

    :raise ModelError: no such finding.
    """
    for name in fixes:
        fault = known_fault(name)
        kernel = replace(kernel, name=f"{kernel.name}+{name}", **{fault.field: not fault.faulty})  # type: ignore[arg-type]
    return kernel


def without_fix(kernel: KernelModel, name: str) -> KernelModel:
    """The same kernel as if it had the fault.

    :raise ModelError: no such finding.
    """
    fault = known_fault(name)
    return replace(kernel, name=f"{kernel.name} without the fix of {name}", **{fault.field: fault.faulty})  # type: ignore[arg-type]


def find_kernel_with_fixes(name: str) -> KernelModel:
    """The model by its name, which may have "+F1" for each fix.

    :raise ModelError: no such kernel, or no such finding.
    """
    base, *fixes = name.split("+")
    return with_fixes(find_kernel(base), fixes)
