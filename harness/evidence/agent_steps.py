# SPDX-License-Identifier: GPL-2.0-or-later
"""progress.jsonl, read once: the agent's steps, and from when on QEMU waits in vain for its vCPU threads."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from harness.contract.capture import AgentStep
from harness.contract.structure import need_object, parse, structure
from harness.contract.words import HostWord
from harness.errors import UsageError

_STOPS_VCPUS = {HostWord.STOP, HostWord.SYNC, HostWord.NMI, HostWord.RESET, HostWord.SAVEVM, HostWord.LOADVM}
"""QEMU has each vCPU out of KVM_RUN for them (its cpus.c:pause_all_vcpus, do_run_on_cpu)."""
_ACTIONS = (AgentStep.HOST_ACTION, AgentStep.HOST_ACTION_DONE)
_LAST_S = 1e9
"""No host's monotonic clock shows as much: thirty years."""


@dataclass(frozen=True, slots=True)
class PerformedAction:
    """A host action as the agent names it: its word, its argument, and the number of the plan's host_actions or timed
    entries that it belongs to; -1: to none, or the capture does not say."""

    do: HostWord
    arg: int = 0
    host: int = -1
    timed: int = -1


@dataclass(frozen=True, slots=True)
class ProgressStep:
    """A line of progress.jsonl: seconds since the capture began, seconds of the trace clock.

    ``action``: of ``host-action`` and ``host-action-done``.
    """

    t: float
    mono: float
    step: AgentStep
    status: str
    action: PerformedAction | None
    tsc_khz: int | None

    @property
    def t_ns(self) -> int:
        """Nanoseconds of the trace clock."""
        return int(self.mono * 1e9)


def read_progress(data: bytes) -> tuple[ProgressStep, ...]:
    """progress.jsonl. :raise UsageError: a line is not what the agent writes."""
    return tuple(_step(line, number) for number, line in enumerate(data.splitlines(), 1))


def _step(line: bytes, number: int) -> ProgressStep:
    try:
        raw = need_object(parse(line))
        step = structure(AgentStep, raw.get("step"), "$.step")
        khz = raw.get("tsc_khz")
        return ProgressStep(
            t=_seconds(raw, "t"),
            mono=_seconds(raw, "mono"),
            step=step,
            status=structure(str, raw.get("status", ""), "$.status"),
            action=_action(raw) if step in _ACTIONS else None,
            tsc_khz=None if khz is None else structure(int, khz, "$.tsc_khz"),
        )
    except UsageError as exc:
        raise UsageError(f"line {number}: {exc.message}") from exc


def _seconds(raw: dict[str, object], name: str) -> float:
    found = structure(float, raw.get(name), f"$.{name}")
    if not (math.isfinite(found) and abs(found) < _LAST_S):
        raise UsageError(f"$.{name}: {found} is no time of this host")
    return found


def _action(raw: dict[str, object]) -> PerformedAction:
    def number(name: str, default: int) -> int:
        told = raw.get(name)
        return default if told is None else structure(int, told, f"$.{name}")

    return PerformedAction(
        structure(HostWord, raw.get("do"), "$.do"), number("arg", 0), number("host", -1), number("timed", -1)
    )


def first_begun_ns(steps: Iterable[ProgressStep], do: HostWord) -> int | None:
    """When the first such host action began, on the trace clock; None: there is none."""
    of_word = (s.t_ns for s in steps if s.action is not None and s.action.do is do and s.step is AgentStep.HOST_ACTION)
    return min(of_word, default=None)


def signalled_ns(steps: Iterable[ProgressStep]) -> int | None:
    """The begin of the first host action that needs the vCPUs out of KVM_RUN and never came to an end, on the trace
    clock; None: there is none."""
    begun: dict[PerformedAction, int] = {}
    for step in steps:
        if step.action is None or step.action.do not in _STOPS_VCPUS:
            continue
        if step.step is AgentStep.HOST_ACTION:
            begun[step.action] = step.t_ns
        else:
            begun.pop(step.action, None)
    return min(begun.values(), default=None)
