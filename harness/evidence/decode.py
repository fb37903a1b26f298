# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture folder, as a mapping of names to bytes -> Evidence: everything decoded and checked for damage.

docs/formats.md section 7 lists the files.  What is missing or contradicts itself is CaptureDamaged: a capture that
cannot be trusted proves nothing, neither pass nor fail.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from harness.contract.plan import GuestKind, Plan, from_json
from harness.contract.words import EndStatus
from harness.errors import CaptureDamaged, UsageError
from harness.evidence import counter_deltas, ftrace, guestlog, trace_events
from harness.model.events import Event


@dataclass(frozen=True, slots=True)
class End:
    """end.json: how the agent's work ended."""

    nonce: int
    status: EndStatus
    reason: str


@dataclass(frozen=True, slots=True)
class Facts:
    """facts.json: what the host and QEMU were."""

    release: str
    vcpu_tids: tuple[int, ...]
    swap_dev: int  # the device whose reads are the pages' own reads: major << 20 | minor, 0 when there is none
    has_mm_fault: bool  # the probes on handle_mm_fault were there
    ram_hva: int
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Evidence:
    """A decoded capture.  ``events`` is empty for a run that ended before tracing began."""

    plan: Plan
    end: End
    facts: Facts | None
    events: tuple[Event, ...]
    lost: int
    complete_until_ns: int  # where events were lost: the trace clock up to which none is missing
    guest: guestlog.GuestLog | None
    result: tuple[str, ...]  # a Linux guest's result lines
    counters: Mapping[str, int]
    precondition: Mapping[str, Any]
    files: Mapping[str, bytes]
    after: Mapping[str, Any] = field(default_factory=dict)  # after.json; empty in captures without it

    def text(self, name: str) -> str:
        """A text file of the capture, empty when it is not there."""
        return self.files.get(name, b"").decode(errors="replace")


def read_end(files: Mapping[str, bytes]) -> End:
    """:raise CaptureDamaged: no end.json: the agent did not finish, so there is no result."""
    raw = _json(files, "end.json")
    try:
        return End(int(raw["nonce"]), EndStatus(raw["status"]), str(raw.get("reason", "")))
    except (KeyError, TypeError, ValueError) as exc:
        raise CaptureDamaged(f"end.json: {exc!r}") from exc


def read_plan(files: Mapping[str, bytes]) -> Plan:
    """:raise CaptureDamaged: no plan.json, or not a plan."""
    try:
        return from_json(Plan, files["plan.json"].decode())
    except KeyError:
        raise CaptureDamaged("plan.json is missing") from None
    except (UsageError, UnicodeDecodeError) as exc:
        raise CaptureDamaged(f"plan.json: {exc}") from exc


def decode(files: Mapping[str, bytes]) -> Evidence:
    """:raise CaptureDamaged: missing, truncated or contradicting files."""
    plan, end = read_plan(files), read_end(files)
    if end.nonce != plan.nonce:
        raise CaptureDamaged(f"end.json carries nonce {end.nonce:#x}, the plan {plan.nonce:#x}: not of this run")
    complete = end.status is EndStatus.DONE
    facts = _facts(_json(files, "facts.json")) if complete or "facts.json" in files else None
    decoded: tuple[Event, ...] = ()
    lost = complete_until_ns = 0
    if facts is not None and (complete or "trace/events.txt" in files):
        trace = ftrace.parse(_need(files, "trace/events.txt").decode(errors="strict"))
        stats = _json(files, "trace/stats.json")
        lost = max(trace.lost, ftrace.lost_by_stats(stats))
        complete_until_ns = ftrace.complete_until(trace, stats) if lost else 0
        _check_entries(trace, stats)
        decoded = tuple(trace_events.decode(trace.lines, facts.vcpu_tids))
    guest: guestlog.GuestLog | None = None
    result: tuple[str, ...] = ()
    if plan.guest.kind is GuestKind.PROBE:
        if complete or "guest/log.bin" in files:
            guest = guestlog.decode(_need(files, "guest/log.bin"), plan.guest.vcpus)
            if guest.nonce != plan.nonce:
                raise CaptureDamaged(f"guest/log.bin carries nonce {guest.nonce:#x}, the plan {plan.nonce:#x}")
            if complete and not guest.ended:
                raise CaptureDamaged("guest/log.bin has no end mark although the run ended with status done")
    elif complete:
        result = _result(_need(files, "guest/result.txt").decode(errors="replace"), plan.nonce)
    moved: Mapping[str, int] = {}
    if complete and facts is not None:
        before, after = _json(files, "counters/before.json"), _json(files, "counters/after.json")
        moved = counter_deltas.deltas(before, after, facts.vcpu_tids)
    precondition = _json(files, "precondition.json") if complete or "precondition.json" in files else {}
    after = _json(files, "after.json") if "after.json" in files else {}
    return Evidence(
        plan, end, facts, decoded, lost, complete_until_ns, guest, result, moved, precondition, files, after
    )


def _check_entries(trace: ftrace.Trace, stats: Mapping[str, Any]) -> None:
    said = sum(int(cpu["entries"]) for cpu in stats.values() if "entries" in cpu)
    if said != len(trace.lines):
        raise CaptureDamaged(
            f"trace/events.txt has {len(trace.lines)} events, the kernel counted {said}: the trace was cut or edited"
        )


def _facts(raw: Mapping[str, Any]) -> Facts:
    try:
        return Facts(
            release=str(raw["release"]),
            vcpu_tids=tuple(int(t) for t in raw["vcpu_tids"]),
            swap_dev=_device(raw.get("io_dev")),
            has_mm_fault=bool(raw.get("mm_fault_probe")),
            ram_hva=int(raw.get("ram_hva") or 0),
            raw=raw,
        )
    except (KeyError, TypeError, ValueError) as exc:
        raise CaptureDamaged(f"facts.json: {exc!r}") from exc


def _device(text: Any) -> int:
    if not text:
        return 0
    major, minor = str(text).replace(":", ",").split(",")
    return int(major) << 20 | int(minor)


def _result(text: str, nonce: int) -> tuple[str, ...]:
    lines = tuple(line.rstrip() for line in text.splitlines() if line.strip())
    if not lines or lines[-1] != f"END {nonce:x}":
        raise CaptureDamaged(f"guest/result.txt does not end with END {nonce:x}: no result")
    return lines[:-1]


def _need(files: Mapping[str, bytes], name: str) -> bytes:
    if name not in files:
        raise CaptureDamaged(f"{name} is missing from the capture")
    return files[name]


def _json(files: Mapping[str, bytes], name: str) -> dict[str, Any]:
    try:
        raw = json.loads(_need(files, name))
    except ValueError as exc:
        raise CaptureDamaged(f"{name}: not JSON: {exc}") from exc
    if not isinstance(raw, dict):
        raise CaptureDamaged(f"{name}: expected an object")
    return raw
