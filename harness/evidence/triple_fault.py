# SPDX-License-Identifier: GPL-2.0-or-later
"""Exceptions that are the way into a triple fault.

A guest that may run an L2 (EFER.SVME) has its #GP intercepted (arch/x86/kvm/svm/svm.c:gp_interception, since 5.12), and
what the host takes there it injects: of int3 without an IDT a #GP, then a #DF, and then it shuts down.  Without the
intercept the processor does all that by itself, and no event tells of it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from harness.model.events import Event, Kind

_KVM_EXIT_SHUTDOWN = 8  # include/uapi/linux/kvm.h
_ON_THE_WAY = re.compile(r"#GP \(0x1a\)|#DF \(")
"""The error code is that of int3's gate (SDM volume 3, 7.13): vector 3 of the IDT."""


def tell_triple_faults(events: Sequence[Event]) -> tuple[Event, ...]:
    """The events, where an exception behind which the vCPU did nothing more but shut down has its flag."""
    out = list(events)
    user_exit = Kind.USER_EXIT  # a member of an enum takes its time to look up
    for end, event in enumerate(events):
        if event.kind is not user_exit or event.value != _KVM_EXIT_SHUTDOWN:
            continue
        for at in range(end - 1, -1, -1):
            before = events[at]
            if before.vcpu != event.vcpu:
                continue
            if before.kind is Kind.INJ_OTHER and _ON_THE_WAY.search(before.text):
                out[at] = replace(before, flag=True)
            elif before.kind not in (Kind.EXIT, Kind.ENTRY):
                break
    return tuple(out)
