# SPDX-License-Identifier: GPL-2.0-or-later
"""Does KVM work on a host?  The smallest guest there is must run to its end."""

from __future__ import annotations

import json
from pathlib import Path

from harness.contract.plan import (
    POOL_GPA,
    Access,
    Guest,
    Item,
    Memory,
    Op,
    Page,
    PageStart,
    Plan,
    Swap,
    SwapKind,
)
from harness.errors import InfraFault


def trial_plan() -> Plan:
    """A probe guest reads one resident page."""
    return Plan(
        scenario="kvm-test",
        title="does a guest run to its end",
        nonce=0x6B766D2D74657374,
        guest=Guest(memory_mib=32),
        memory=Memory(),
        swap=Swap(kind=SwapKind.NONE),
        pages=(Page(POOL_GPA, PageStart.POPULATED, "p[0]"),),
        items=(Item(index=0, op=Op.TOUCH, gpa=POOL_GPA, access=Access.READ, page="p[0]"),),
        deadline_s=20,
    )


def require_done(capture: Path) -> None:
    """:raise InfraFault: the guest of this capture did not run to its end."""
    try:
        end = json.loads((capture / "end.json").read_text())
        status, reason = str(end["status"]), str(end.get("reason", ""))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise InfraFault(f"the test guest left no end.json: {exc!r}") from exc
    if status != "done":
        raise InfraFault(f"the test guest ended with {status!r}: {reason}")
