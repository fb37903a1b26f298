# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host and the agent that serves it say to each other, a line each (docs/formats/service.md)."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from harness.contract.plan import Plan
from harness.contract.structure import plain


@dataclass(frozen=True, slots=True)
class AgentOptions:
    """Where things are on the host, and where the capture goes.  Paths; empty: there is none."""

    out: str
    probe: str = ""
    disk: str = ""
    qemu: str = "qemu-system-x86_64"
    guest_kernel: str = ""
    guest_initrd: str = ""
    program: str = ""  # of a plan for a host program
    accel: str = "kvm"
    journal: str = ""
    scratch: str = "/run"  # where the RAM file's file system is mounted
    no_disk: str = ""  # why there is no disk
    memory_mib: int = 0  # what the guest and its QEMU may take; 0: what is available
    trace_dat: bool = False  # the trace as trace.dat, too
    # So many times longer than on an idle machine may take what a guest or a program does without a pause.
    patience: float = 1.0


@dataclass(frozen=True, slots=True)
class PlanRequest:
    """Host to agent: perform this plan."""

    plan: Plan
    options: AgentOptions


@dataclass(frozen=True, slots=True)
class PlanServed:
    """Agent to host: the plan was performed.

    :ivar served: exit code of the process that did it.
    :ivar stderr: what that process wrote there.
    :ivar undone: the host is as before, as end.json says; else the capture has the journal of what is left.
    """

    served: int
    stderr: str
    undone: bool = False


@dataclass(frozen=True, slots=True)
class AgentServing:
    """Agent to host: it is ready.  ``serving``: its process id."""

    serving: int


def line_of(message: Any) -> str:
    """A message as one line of JSON, without the end of line."""
    return json.dumps(plain(message))
