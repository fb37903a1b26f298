# SPDX-License-Identifier: GPL-2.0-or-later
"""From when on QEMU waits in vain for its vCPU threads, which have signals pending then."""

from __future__ import annotations

import json

from harness.contract.capture import AgentStep
from harness.contract.words import HostWord

_STOPS_VCPUS = {HostWord.STOP, HostWord.SYNC, HostWord.NMI, HostWord.RESET, HostWord.SAVEVM, HostWord.LOADVM}
"""QEMU has each vCPU out of KVM_RUN for them (its cpus.c:pause_all_vcpus, do_run_on_cpu)."""


def signalled_ns(progress: str) -> int | None:
    """The begin of the first host action that needs the vCPUs out of KVM_RUN and never came to an end, on the trace
    clock; None: there is none, or this is no progress.jsonl."""
    begun: dict[tuple[object, ...], int] = {}
    try:
        for step in map(json.loads, progress.splitlines()):
            if step.get("do") not in _STOPS_VCPUS:
                continue
            key = tuple(step.get(name) for name in ("do", "arg", "host", "timed"))
            if step["step"] == AgentStep.HOST_ACTION:
                begun[key] = int(step["mono"] * 1e9)
            elif step["step"] == AgentStep.HOST_ACTION_DONE:
                begun.pop(key, None)
    except (ValueError, AttributeError, KeyError, TypeError):
        return None
    return min(begun.values(), default=None)
