# SPDX-License-Identifier: GPL-2.0-or-later
"""The text files of a capture, which carry no counts: is each of this run, from its beginning to its end?

What a log does not say is taken as not having happened, so one that was cut, or is another's, proves nothing.  Each
function yields in words what is missing, nothing where all is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from harness.contract.capture import MESSAGES_LOST, log_marks
from harness.contract.plan import GuestKind, Plan

_READY = "apf-probe: ready, nonce"
"""guest-images/probe/main.c, once, before anything of the run."""
_SAYS = "workload: "
"""guest-images/linux/workload.c writes its results to the console, too."""


def mark_problems(log: str, nonce: int) -> Iterator[str]:
    """host/dmesg.txt, between the lines that the agent wrote into the kernel's log (/dev/kmsg), and without a hole: the
    kernel's ring buffer may have overrun its reader (kernel/printk/printk.c: devkmsg_read, EPIPE)."""
    begins, ends = log_marks(nonce)
    lines = [line.partition("] ")[2] for line in log.splitlines()]
    if MESSAGES_LOST in log.splitlines():
        yield "host/dmesg.txt: the kernel's log was overrun before it was read, so that a warning may be missing"
    there = [line for line in lines if line in (begins, ends)]
    if there != [begins, ends]:
        yield (
            f"host/dmesg.txt: the lines {begins!r} and {ends!r} do not stand in it once each, in this order: it is not"
            " all that the kernel said during the run (printk.devkmsg=off lets nobody write them)"
        )


def console_problems(plan: Plan, console: str, result: str) -> Iterator[str]:
    """guest/console.txt of a guest whose program came to its end.

    :param result: guest/result.txt, whose last line the console may not have any more when QEMU is ended.
    """
    if plan.guest.kind is GuestKind.PROBE:
        due = [f"{_READY} {plan.nonce:016x}"]
    else:
        due = [f"{_SAYS}{line}".strip() for line in result.splitlines()[:-1] if line.strip()]
    rest = iter(console)  # the kernel's lines may stand between any two characters of the workload's
    for text in due:
        if not all(char in rest for char in text):
            yield f"guest/console.txt: it does not say {text!r}: it is not all that the guest of this run said"
            return


def qmp_problems(qmp: str) -> Iterator[str]:
    """qmp.jsonl: the greeting, and an answer to each command. :raise ValueError: a line is no JSON object."""
    messages = [json.loads(line) for line in qmp.splitlines() if line.strip()]
    if not messages or "QMP" not in _message(messages[0]):
        yield "qmp.jsonl does not begin with QEMU's greeting"
    asked = {_message(m).get("id") for m in messages if m.get("dir") == "out"} - {None}
    told = {_message(m).get("id") for m in messages if m.get("dir") == "in"}
    if asked - told:
        yield f"qmp.jsonl: no answer to {', '.join(map(str, sorted(map(str, asked - told))))}"
    if told - asked - {None}:
        yield f"qmp.jsonl: an answer to {', '.join(sorted(map(str, told - asked - {None})))}, which nobody asked"


def _message(line: Any) -> dict[str, Any]:
    found = line.get("message")
    return found if isinstance(found, dict) else {}
