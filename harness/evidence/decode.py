# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture folder, as a mapping of names to bytes -> Evidence: everything decoded and checked for damage.

docs/formats/capture.md lists the files.  What is missing or contradicts itself is CaptureDamaged: a capture that
cannot be trusted proves nothing, neither pass nor fail.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from harness.contract.capture import (
    EMULATED,
    FORMAT,
    SINCE,
    UNTIED,
    WITHOUT_LEFT,
    AgentStep,
    CounterSnapshot,
    Facts,
    FinalState,
    GateLog,
    HostFacts,
    LinuxResult,
    MemoryLeft,
    OfRun,
    Precondition,
    RunEnd,
    TraceStats,
)
from harness.contract.gate import HELD
from harness.contract.plan import GuestKind, Plan, online_cpus, starts_anew, vcpu_ids
from harness.contract.plan_check import read_checked_plan
from harness.contract.structure import left_out, need_object, parse, structure
from harness.contract.words import EndStatus
from harness.errors import CaptureDamaged, UsageError
from harness.evidence import (
    agreement,
    counter_deltas,
    format_1,
    ftrace,
    guestlog,
    linux_result,
    resets,
    trace_events,
)
from harness.evidence.agent_steps import ProgressStep, read_progress, signalled_ns
from harness.evidence.completeness import (
    HostHas,
    counter_problems,
    event_problems,
    run_problems,
    shown_problems,
    trace_problems,
)
from harness.evidence.gate_agreement import READ_BY, gate_problems
from harness.evidence.guest_frame import frame_problems
from harness.evidence.host_log import LOG, WeighedLog, read_guest_log, read_host_log
from harness.evidence.injected_again import tell_injected_again
from harness.evidence.moved_l2 import moved_back
from harness.evidence.nullable import Known, null_problems
from harness.evidence.ram_address import ADDRESSED, ram_address
from harness.evidence.texts import console_problems, qmp_problems
from harness.evidence.thread_order import order_problems
from harness.evidence.triple_fault import tell_triple_faults
from harness.model.events import Event, Kind

T = TypeVar("T")
R = TypeVar("R", bound=OfRun)
Files = Mapping[str, bytes]
_TO_THE_END = (EndStatus.DONE, EndStatus.GUEST_TIMEOUT)
"""The guest was let go and the agent collected everything."""


def _collected(files: Files, end: RunEnd) -> bool:
    """Whether the guest was there to the end of a run that had its precondition: the agent has its log and pages."""
    return end.status in _TO_THE_END and (end.status is EndStatus.DONE or "precondition.json" in files)


@dataclass(frozen=True, slots=True)
class DecodedFacts:
    """What the judge must know of host and QEMU, from facts.json of any format."""

    vcpu_tids: tuple[int, ...]
    swap_dev: int  # the device whose reads are the pages' own reads: major << 20 | minor, 0 when there is none
    has_mm_fault: bool  # the probes on handle_mm_fault were there
    trace_events: tuple[str, ...]  # "system/event" of what was recorded
    has: HostHas
    later_tids: tuple[tuple[int, int], ...] = ()  # vCPU and thread of each that was plugged in again
    accel: str = ""  # what runs the guest; "": not said
    qemu_version: str = ""


@dataclass(frozen=True, slots=True)
class Evidence:
    """A decoded capture.

    ``events`` is empty for a run that ended before tracing began, and without the round trips (round_trips.py) of a
    Linux guest: of these recorded() knows.
    """

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
    left: MemoryLeft | None = None  # since format 4
    ended_ns: int | None = None  # trace clock at which a Linux guest had told its result; None: a probe guest
    host_log: WeighedLog = field(default_factory=WeighedLog)
    guest_log: WeighedLog = field(default_factory=WeighedLog)  # of a Linux guest
    folded: frozenset[Kind] = frozenset()  # of what there are round trips that are not among the events
    steps: tuple[ProgressStep, ...] = ()  # progress.jsonl
    _at: Sequence[Sequence[int]] = field(init=False, repr=False, compare=False)  # by kind, where in ``events``
    _ram_hva: list[int] = field(init=False, repr=False, compare=False, default_factory=list)  # once it was asked for

    def __post_init__(self) -> None:
        at: list[list[int]] = [[] for _ in range(max(Kind) + 1)]
        for number, event in enumerate(self.events):
            at[event.kind].append(number)
        object.__setattr__(self, "_at", at)

    def of(self, *kinds: Kind) -> list[Event]:
        """The events of these kinds, in order: most of a long trace are entries, exits and switches, which few need."""
        return [self.events[number] for number in sorted(chain.from_iterable(self._at[kind] for kind in kinds))]

    def has(self, kind: Kind) -> bool:
        """Whether any was recorded."""
        return bool(self._at[kind]) or kind in self.folded

    def ram_hva(self) -> int:
        """Where QEMU has the guest's RAM; 0: unknown."""
        if not self._ram_hva:
            self._ram_hva.append(ram_address(self.of(*ADDRESSED)))
        return self._ram_hva[0]

    def recorded(self) -> Sequence[Event]:
        """All events, in order, for who draws them or shows what stands around one."""
        if not self.folded or self.facts is None:
            return self.events
        with _uncollected():
            return _events(ftrace.parse(_text(self.files, "trace/events.txt")), self.facts, self.files, self.plan)

    def text(self, name: str) -> str:
        """A text file of the capture, empty when it is not there."""
        return self.files.get(name, b"").decode(errors="replace")


def read_end(files: Files) -> RunEnd:
    """How the agent's work ended, and in which format it wrote the capture.

    :raise CaptureDamaged: no end.json: the agent did not finish, so there is no result; or a format that is not known.
    """
    raw = _json(files, "end.json")
    number = raw.get("format", format_1.FORMAT)
    if type(number) is not int or number not in range(format_1.FORMAT, FORMAT + 1):
        raise CaptureDamaged(
            f"the capture has format {number!r}; the formats {format_1.FORMAT} to {FORMAT} can be read"
        )
    return _record("end.json", lambda: format_1.run_end(raw) if number == format_1.FORMAT else structure(RunEnd, raw))


def read_plan(files: Files) -> Plan:
    """:raise CaptureDamaged: no plan.json, or not a plan."""
    data = _need(files, "plan.json")
    return _record("plan.json", lambda: read_checked_plan(data))


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


@contextmanager
def _uncollected() -> Iterator[None]:
    """Lines and events hold each other in no cycles: the collector would go through all there are, again and again."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


@_uncollected()
def decode(files: Files) -> Evidence:
    """:raise CaptureDamaged: missing, truncated or contradicting files."""
    plan, end = read_plan(files), read_end(files)
    if end.nonce != plan.nonce:
        raise CaptureDamaged(f"end.json carries nonce {end.nonce:#x}, the plan {plan.nonce:#x}: not of this run")
    complete = end.status is EndStatus.DONE
    steps: tuple[ProgressStep, ...] = ()
    if complete or "progress.jsonl" in files:
        steps = _record("progress.jsonl", lambda: read_progress(_need(files, "progress.jsonl")))
    records = _Records(files, end)
    facts = _facts(records) if complete or "facts.json" in files else None
    decoded: tuple[Event, ...] = ()
    lost = complete_until_ns = 0
    folded: frozenset[Kind] = frozenset()
    if facts is not None and (complete or "trace/events.txt" in files):
        text = _text(files, "trace/events.txt")
        trace = ftrace.parse(text, fold=plan.guest.kind is GuestKind.LINUX and not _begins_anew(facts, files))
        stats = records.read("trace/stats.json", TraceStats, format_1.trace_stats)
        lost = max(trace.lost, stats.lost)
        if lost and trace.folded:  # where the whole trace ends may be at any line
            trace = ftrace.parse(text)
        folded = trace_events.kinds(trace.folded_events)
        complete_until_ns = ftrace.complete_until(trace, stats) if lost else 0
        _demand(trace_problems(facts.has, trace, stats, facts.trace_events))
        decoded = _events(trace, facts, files, plan)
    moved: Mapping[str, int] = {}
    growth: int | None = None
    if complete and facts is not None:
        before, after = (
            records.read(f"counters/{when}.json", CounterSnapshot, format_1.counters) for when in ("before", "after")
        )
        moved = counter_deltas.deltas(before, after, facts.vcpu_tids, facts.later_tids)
        growth = counter_deltas.anon_growth(before, after)
        _demand(counter_problems(facts.has, before, after))
    evidence = Evidence(
        plan=plan,
        end=end,
        facts=facts,
        events=decoded,
        lost=lost,
        complete_until_ns=complete_until_ns,
        guest=_guest(files, plan, complete=complete, due=_collected(files, end)),
        result=_result(files, plan) if complete and plan.guest.kind is GuestKind.LINUX else None,
        counters=moved,
        anon_growth=growth,
        precondition=records.read("precondition.json", Precondition, format_1.precondition)
        if complete or "precondition.json" in files
        else None,
        files=files,
        after=records.read("after.json", FinalState, format_1.final_state) if "after.json" in files else None,
        left=records.read("left.json", MemoryLeft)
        if "left.json" in files or (complete and end.format > WITHOUT_LEFT)
        else None,
        gate=records.read("gate.json", GateLog)
        if plan.swap.kind in HELD and (end.status in _TO_THE_END or "gate.json" in files)
        else None,
        ended_ns=_ended_ns(steps) if complete and plan.guest.kind is GuestKind.LINUX else None,
        host_log=read_host_log(files, end),
        guest_log=read_guest_log(files, end.nonce),
        folded=folded,
        steps=steps,
    )
    _demand(chain(records.problems(plan), _problems(evidence)))
    return evidence


def _begins_anew(facts: DecodedFacts, files: Files) -> bool:
    """A reset, a snapshot or a new vCPU thread: where it is put among the events depends on the events beside it."""
    qmp = files.get("qmp.jsonl", b"")
    return bool(facts.later_tids) or b"RESET" in qmp or b"loadvm" in qmp


def _events(trace: ftrace.Trace, facts: DecodedFacts, files: Files, plan: Plan) -> tuple[Event, ...]:
    """Those of the trace, and what it does not show."""
    vcpus = len(facts.vcpu_tids)
    qmp = files.get("qmp.jsonl", b"").decode(errors="replace")
    told = tuple(trace_events.decode(trace.lines, facts.vcpu_tids, vcpu_ids(plan.guest), facts.later_tids))
    told = moved_back(told) if plan.guest.l2.moved else told
    found = tell_triple_faults(tell_injected_again(told))
    found = resets.add_plugs(resets.add_clears(found, resets.parse_resets(qmp), vcpus), facts.later_tids)
    return resets.add_inits(resets.add_loads(found, resets.parse_loads(qmp), vcpus))


def _ended_ns(steps: Sequence[ProgressStep]) -> int | None:
    """When the agent saw the guest's result; the trace's clock is CLOCK_MONOTONIC, too."""
    return next((round(s.mono * 1e9) for s in steps if s.step is AgentStep.GUEST_ENDED), None)


def _problems(e: Evidence) -> Iterator[str]:
    """Files that contradict each other, or say less than the host had to tell; of an early end as far as it goes."""
    plan, facts = e.plan, e.facts
    probe, complete = plan.guest.kind is GuestKind.PROBE, e.end.status is EndStatus.DONE
    if facts is not None and (complete or e.events):
        if len(set(facts.vcpu_tids)) != plan.guest.vcpus or len(facts.vcpu_tids) != plan.guest.vcpus:
            yield f"facts.json: the plan has {plan.guest.vcpus} vCPUs, their threads are {list(facts.vcpu_tids)}"
        saved = [name.removeprefix(_FORMATS) for name in e.files if name.startswith(_FORMATS)]
        boots = not probe and plan.guest.workload == "boot"
        yield from event_problems(facts.has, facts.trace_events, facts.has_mm_fault, saved, boots)
        yield from agreement.thread_problems(e.events, probe=probe)
        if _WAKING in facts.trace_events and not e.lost:
            yield from agreement.wake_problems(e.events, {tid for _, tid in facts.later_tids}, signalled_ns(e.steps))
        if not e.lost:
            ends = _WORK_END in facts.trace_events
            yield from order_problems(e.events, {tid for _, tid in facts.later_tids}, works_end=ends)
    if e.guest is not None:
        yield from (f"guest/log.bin: {text}" for text in frame_problems(plan, e.guest, e.end.format))
    if e.gate is not None and facts is not None and (complete or e.end.status in _TO_THE_END) and not e.lost:
        ram_hva = e.ram_hva() if facts.has_mm_fault else 0
        end_ns = e.events[-1].t_ns if e.events else 0
        yield from gate_problems(plan, e.gate, e.precondition, e.of(*READ_BY), facts.swap_dev, ram_hva, end_ns)
    if probe and e.precondition is not None:
        yield from agreement.precondition_problems(e.precondition, plan)
    if probe and _collected(e.files, e.end) and (e.after is not None or e.end.format != format_1.FORMAT):
        yield from agreement.left_problems(plan, e.after, old=e.end.format == format_1.FORMAT)
    if not complete:
        return
    for name in (LOG, "guest/console.txt"):
        _need(e.files, name)
    if e.end.format > WITHOUT_LEFT:
        yield from console_problems(plan, e.text("guest/console.txt"), e.text("guest/result.txt"))
        yield from qmp_problems(e.text("qmp.jsonl"))
    yield from agreement.progress_problems(e.steps, e.end, e.guest, plan)
    if not e.lost:
        yield from agreement.clock_problems(e.steps, e.events, probe=probe)
    if probe:
        yield from agreement.program_problems(plan, _need(e.files, "guest/items.bin"))
        if e.guest is not None and not e.lost and not starts_anew(plan):
            yield from agreement.register_problems(plan, e.guest, e.of(Kind.WRMSR, Kind.RDMSR))


_FORMATS = "trace/formats/"
_WAKING, _WORK_END = "sched/sched_waking", "apf/work_end"


def _demand(problems: Iterator[str]) -> None:
    """:raise CaptureDamaged: there is one; the first is told, with the number of others."""
    found = list(problems)
    if found:
        raise CaptureDamaged(found[0] + (f" (and {len(found) - 1} more)" if len(found) > 1 else ""))


def _guest(files: Files, plan: Plan, *, complete: bool, due: bool) -> guestlog.GuestLog | None:
    if plan.guest.kind is not GuestKind.PROBE or not (due or "guest/log.bin" in files):
        return None
    guest = guestlog.decode(_need(files, "guest/log.bin"), plan.guest.vcpus)
    if guest.nonce != plan.nonce:
        raise CaptureDamaged(f"guest/log.bin carries nonce {guest.nonce:#x}, the plan {plan.nonce:#x}")
    if complete and not guest.ended:
        raise CaptureDamaged("guest/log.bin has no end mark although the run ended with status done")
    return guest


def _result(files: Files, plan: Plan) -> LinuxResult:
    result = linux_result.decode(_need(files, "guest/result.txt").decode(errors="replace"), plan.nonce)
    if (result.workload, result.cpus) != (plan.guest.workload, online := online_cpus(plan.guest)):
        raise CaptureDamaged(
            f"guest/result.txt is of the workload {result.workload!r} on {result.cpus} CPUs, the plan has"
            f" {plan.guest.workload!r} on {online}"
        )
    return result


def _has(host: HostFacts | _OldFacts) -> HostHas:
    emulated = isinstance(host, HostFacts) and EMULATED in host.cmdline.split()
    return HostHas(
        release=host.release, cpus=host.cpus, kvm_events=host.kvm_events, debugfs=bool(host.debugfs),
        cgroup_memory=host.cgroup_memory, vm_event_counters=host.vm_event_counters, emulated=emulated,
    )  # fmt: skip


def _facts(records: _Records) -> DecodedFacts | None:
    """None: the run ended before QEMU could be asked."""
    files, end = records.files, records.end
    if end.format != format_1.FORMAT:
        facts = records.read("facts.json", Facts)
        run = facts.run
        if run is None:
            return None
        has = _has(facts.host)
        _device(run.backing_device)  # nothing is read from that disk, but it has to be one
        io_dev = _device(run.io_dev)
        return DecodedFacts(
            run.vcpu_tids, io_dev, run.mm_fault_probe, run.trace_events, has, run.later_tids, run.accel,
            run.qemu_version,
        )  # fmt: skip
    raw = _json(files, "facts.json")
    if "vcpu_tids" not in raw:
        return None
    known = {name: raw[name] for name in _OldFacts.__dataclass_fields__ if name in raw}
    found = _record("facts.json", lambda: structure(_OldFacts, known))
    has = _has(found)
    return DecodedFacts(
        found.vcpu_tids, _device(found.io_dev), found.mm_fault_probe, found.trace_events, has, accel=found.accel,
        qemu_version=found.qemu_version,
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _OldFacts:
    vcpu_tids: tuple[int, ...]
    io_dev: str | None
    mm_fault_probe: bool
    trace_events: tuple[str, ...]
    release: str
    cpus: int
    kvm_events: tuple[str, ...]
    debugfs: str
    cgroup_memory: bool
    vm_event_counters: bool
    accel: str = ""
    qemu_version: str = ""


def _device(text: str | None) -> int:
    if text is None:
        return 0
    try:
        major, minor = (int(n) for n in text.replace(":", ",").split(","))
    except ValueError:
        raise CaptureDamaged(f"facts.json: io_dev {text!r} is no device number") from None
    return major << 20 | minor


@dataclass(slots=True)
class _Records:
    """The JSON files of a run; ``read_so_far``: by their names."""

    files: Files
    end: RunEnd
    read_so_far: dict[str, OfRun] = field(default_factory=dict)

    def read(self, name: str, cls: type[R], old: Callable[[Any], R] | None = None) -> R:
        """A record of this run, by its nonce where its format has one, and whole: a field that has come since is no
        reason to be content without the others.

        :param old: reads that of format 1.
        """
        raw, version = _json(self.files, name), self.end.format
        first = version == format_1.FORMAT
        record = _record(name, lambda: old(raw) if old and first else structure(cls, raw))
        if version > WITHOUT_LEFT:
            _demand(
                f"{name}: {key}: missing"
                for key in left_out(record, raw)
                if SINCE.get(key.rpartition(".")[2], 0) <= version
            )
        if version > UNTIED and record.nonce is None:
            raise CaptureDamaged(f"{name} carries no nonce: it does not say of which run it is")
        if record.nonce not in (None, self.end.nonce):
            raise CaptureDamaged(
                f"{name} carries nonce {record.nonce:#x}, the plan {self.end.nonce:#x}: not of this run"
            )
        self.read_so_far[name] = record
        return record

    def problems(self, plan: Plan) -> Iterator[str]:
        """What is null in one and must not be, and what the host is said not to have, but showed."""
        facts = self.read_so_far.get("facts.json")
        if self.end.format <= WITHOUT_LEFT or not isinstance(facts, Facts) or facts.run is None:
            return
        known = Known(plan, facts, self.end.format)
        for name, record in self.read_so_far.items():
            yield from null_problems(name, record, known)
            if isinstance(record, CounterSnapshot):
                yield from shown_problems(facts.host, name, record)
        yield from run_problems(facts.host, facts.run)


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
