# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture folder, as a mapping of names to bytes -> Evidence: everything decoded and checked for damage.

docs/formats/capture.md lists the files.  What is missing or contradicts itself is CaptureDamaged: a capture that
cannot be trusted proves nothing, neither pass nor fail.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from harness.contract.capture import (
    FORMAT,
    CounterSnapshot,
    Facts,
    FinalState,
    GateLog,
    LinuxResult,
    Precondition,
    RunEnd,
    TraceStats,
)
from harness.contract.plan import GuestKind, Plan, from_json
from harness.contract.structure import need_object, parse, structure
from harness.contract.words import EndStatus, SwapKind
from harness.errors import CaptureDamaged, UsageError
from harness.evidence import counter_deltas, format_1, ftrace, guestlog, linux_result, resets, trace_events
from harness.model.events import Event

T = TypeVar("T")
Files = Mapping[str, bytes]


@dataclass(frozen=True, slots=True)
class DecodedFacts:
    """What the judge must know of host and QEMU, from facts.json of any format."""

    vcpu_tids: tuple[int, ...]
    swap_dev: int  # the device whose reads are the pages' own reads: major << 20 | minor, 0 when there is none
    has_mm_fault: bool  # the probes on handle_mm_fault were there
    trace_events: tuple[str, ...]  # "system/event" of what was recorded; empty in old captures, which do not say


@dataclass(frozen=True, slots=True)
class Evidence:
    """A decoded capture.  ``events`` is empty for a run that ended before tracing began."""

    plan: Plan
    end: RunEnd
    facts: DecodedFacts | None
    events: tuple[Event, ...]
    lost: int
    complete_until_ns: int  # where events were lost: the trace clock up to which none is missing
    guest: guestlog.GuestLog | None
    result: LinuxResult | None
    counters: Mapping[str, int]  # how far they moved
    anon_growth: int | None  # anonymous pages of QEMU that came during the run
    precondition: Precondition | None
    files: Files
    after: FinalState | None = None
    gate: GateLog | None = None  # of a gated device

    def text(self, name: str) -> str:
        """A text file of the capture, empty when it is not there."""
        return self.files.get(name, b"").decode(errors="replace")


def read_end(files: Files) -> RunEnd:
    """How the agent's work ended, and in which format it wrote the capture.

    :raise CaptureDamaged: no end.json: the agent did not finish, so there is no result; or a format that is not known.
    """
    raw = _json(files, "end.json")
    number = raw.get("format", format_1.FORMAT)
    if type(number) is not int or number not in (format_1.FORMAT, FORMAT):
        raise CaptureDamaged(
            f"the capture has format {number!r}; the formats {format_1.FORMAT} to {FORMAT} can be read"
        )
    return _record("end.json", lambda: format_1.run_end(raw) if number == format_1.FORMAT else structure(RunEnd, raw))


def read_plan(files: Files) -> Plan:
    """:raise CaptureDamaged: no plan.json, or not a plan."""
    data = _need(files, "plan.json")
    return _record("plan.json", lambda: from_json(Plan, data))


def read_release(files: Files) -> str:
    """Release and version of the kernel that the host ran: enough to find its model.

    :raise CaptureDamaged: facts.json does not say.
    """
    raw = _json(files, "facts.json")
    host = raw["host"] if isinstance(raw.get("host"), dict) else raw
    release, version = host.get("release"), host.get("kernel_version", "")
    if not isinstance(release, str) or not isinstance(version, str):
        raise CaptureDamaged("facts.json does not say which kernel the host ran")
    return f"{release} {version}"


def decode(files: Files) -> Evidence:
    """:raise CaptureDamaged: missing, truncated or contradicting files."""
    plan, end = read_plan(files), read_end(files)
    if end.nonce != plan.nonce:
        raise CaptureDamaged(f"end.json carries nonce {end.nonce:#x}, the plan {plan.nonce:#x}: not of this run")
    complete = end.status is EndStatus.DONE
    old = end.format == format_1.FORMAT
    facts = _facts(_json(files, "facts.json"), old) if complete or "facts.json" in files else None
    decoded: tuple[Event, ...] = ()
    lost = complete_until_ns = 0
    if facts is not None and (complete or "trace/events.txt" in files):
        trace = ftrace.parse(_text(files, "trace/events.txt"))
        stats = _read(files, "trace/stats.json", TraceStats, format_1.trace_stats if old else None)
        lost = max(trace.lost, stats.lost)
        complete_until_ns = ftrace.complete_until(trace, stats) if lost else 0
        if stats.entries != len(trace.lines):
            raise CaptureDamaged(
                f"trace/events.txt has {len(trace.lines)} events, the kernel counted {stats.entries}:"
                " the trace was cut or edited"
            )
        decoded = tuple(trace_events.decode(trace.lines, facts.vcpu_tids))
        happened = resets.parse_resets(files.get("qmp.jsonl", b"").decode(errors="replace"))
        decoded = resets.add_clears(decoded, happened, len(facts.vcpu_tids))
    moved: Mapping[str, int] = {}
    growth: int | None = None
    if complete and facts is not None:
        before, after = (
            _read(files, f"counters/{when}.json", CounterSnapshot, format_1.counters if old else None)
            for when in ("before", "after")
        )
        moved = counter_deltas.deltas(before, after, facts.vcpu_tids)
        growth = counter_deltas.anon_growth(before, after)
    return Evidence(
        plan=plan,
        end=end,
        facts=facts,
        events=decoded,
        lost=lost,
        complete_until_ns=complete_until_ns,
        guest=_guest(files, plan, complete=complete),
        result=_result(files, plan) if complete and plan.guest.kind is GuestKind.LINUX else None,
        counters=moved,
        anon_growth=growth,
        precondition=_read(files, "precondition.json", Precondition, format_1.precondition if old else None)
        if complete or "precondition.json" in files
        else None,
        files=files,
        after=_read(files, "after.json", FinalState, format_1.final_state if old else None)
        if "after.json" in files
        else None,
        gate=_read(files, "gate.json", GateLog, None)
        if plan.swap.kind is SwapKind.GATED and (complete or "gate.json" in files)
        else None,
    )


def _guest(files: Files, plan: Plan, *, complete: bool) -> guestlog.GuestLog | None:
    if plan.guest.kind is not GuestKind.PROBE or not (complete or "guest/log.bin" in files):
        return None
    guest = guestlog.decode(_need(files, "guest/log.bin"), plan.guest.vcpus)
    if guest.nonce != plan.nonce:
        raise CaptureDamaged(f"guest/log.bin carries nonce {guest.nonce:#x}, the plan {plan.nonce:#x}")
    if complete and not guest.ended:
        raise CaptureDamaged("guest/log.bin has no end mark although the run ended with status done")
    return guest


def _result(files: Files, plan: Plan) -> LinuxResult:
    result = linux_result.decode(_need(files, "guest/result.txt").decode(errors="replace"), plan.nonce)
    if (result.workload, result.cpus) != (plan.guest.workload, plan.guest.vcpus):
        raise CaptureDamaged(
            f"guest/result.txt is of the workload {result.workload!r} on {result.cpus} CPUs, the plan has"
            f" {plan.guest.workload!r} on {plan.guest.vcpus}"
        )
    return result


def _facts(raw: Mapping[str, Any], old: bool) -> DecodedFacts | None:
    """None: the run ended before QEMU could be asked."""
    if not old:
        run = _record("facts.json", lambda: structure(Facts, raw)).run
        if run is None:
            return None
        return DecodedFacts(run.vcpu_tids, _device(run.io_dev), run.mm_fault_probe, run.trace_events)
    known = {
        "vcpu_tids": raw.get("vcpu_tids"),
        "io_dev": raw.get("io_dev"),
        "mm_fault_probe": raw.get("mm_fault_probe", False),
        "trace_events": raw.get("trace_events", []),
    }
    found = _record("facts.json", lambda: structure(_OldFacts, known))
    return DecodedFacts(found.vcpu_tids, _device(found.io_dev), found.mm_fault_probe, found.trace_events)


@dataclass(frozen=True, slots=True)
class _OldFacts:
    vcpu_tids: tuple[int, ...]
    io_dev: str | None
    mm_fault_probe: bool
    trace_events: tuple[str, ...]


def _device(text: str | None) -> int:
    if not text:
        return 0
    try:
        major, minor = (int(n) for n in text.replace(":", ",").split(","))
    except ValueError:
        raise CaptureDamaged(f"facts.json: io_dev {text!r} is no device number") from None
    return major << 20 | minor


def _read(files: Files, name: str, cls: type[T], old: Callable[[Any], T] | None) -> T:
    raw = _json(files, name)
    return _record(name, lambda: old(raw) if old else structure(cls, raw))


def _record(name: str, read: Callable[[], T]) -> T:
    try:
        return read()
    except UsageError as exc:
        raise CaptureDamaged(f"{name}: {exc.message}") from exc


def _need(files: Files, name: str) -> bytes:
    if name not in files:
        raise CaptureDamaged(f"{name} is missing from the capture")
    return files[name]


def _text(files: Files, name: str) -> str:
    try:
        return _need(files, name).decode()
    except UnicodeDecodeError as exc:
        raise CaptureDamaged(f"{name}: {exc}") from exc


def _json(files: Files, name: str) -> dict[str, Any]:
    data = _need(files, name)
    return _record(name, lambda: need_object(parse(data)))
