# SPDX-License-Identifier: GPL-2.0-or-later
"""Is everything there that the host is said to have?  What was not recorded cannot show that it did not happen.

Each function yields in words what is missing, nothing where all is there.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass
from itertools import pairwise

from harness.contract.capture import CounterSnapshot, HostFacts, RunFacts, TraceStats
from harness.evidence.ftrace import Trace

_NEEDED_EVENTS = (
    "kvm/kvm_entry", "kvm/kvm_exit", "kvm/kvm_try_async_get_page", "kvm/kvm_async_pf_not_present",
    "kvm/kvm_async_pf_ready", "kvm/kvm_async_pf_completed", "kvm/kvm_inj_exception", "kvm/kvm_apic_accept_irq",
    "kvm/kvm_msr", "block/block_bio_queue", "sched/sched_switch",
)  # fmt: skip
"""Tracepoints of each kernel from 5.10 on (arch/x86/kvm/trace.h, include/trace/events): no verdict without them."""
_REPEATED = ("kvm/kvm_async_pf_repeated_fault", "kvm/kvm_async_pf_doublefault")
_UNLESS_BOOT = ("kvm/kvm_page_fault", "kvm/kvm_userspace_exit", "kvm/kvm_eoi", "apf/mm_fault", "apf/mm_fault_ret")
"""Left out while a Linux guest boots (harness/agent/host/tracing.py: BOOT_WITHOUT)."""

_VMSTAT = ("pgmajfault", "pswpin", "swap_ra", "swap_ra_hit")
_KVM = ("pf_fixed", "pf_guest", "halt_exits", "halt_attempted_poll")
_KVM_5_19 = ("pf_taken", "pf_spurious", "pf_emulate")
"""arch/x86/kvm/x86.c: kvm_vcpu_stats_desc since 5.19 (1075d41efd3d); pf_guest and pf_fixed are older."""


@dataclass(frozen=True, slots=True)
class HostHas:
    """What facts.json says of the host, as far as it decides what must be recorded."""

    release: str
    cpus: int
    kvm_events: tuple[str, ...]
    debugfs: bool
    cgroup_memory: bool
    vm_event_counters: bool
    emulated: bool = False  # a virtual host, which nobody else uses


def event_problems(
    has: HostHas, recorded: Sequence[str], probed: bool, formats: Sequence[str], boots: bool
) -> Iterator[str]:
    """facts.trace_events against what the host has.

    :param recorded: "system/event" of facts.trace_events.
    :param formats: "system/event" of the format files that were saved beside the trace; empty: none were.
    :param boots: a Linux guest is traced from its first instruction, with fewer events.
    """
    due = [*_NEEDED_EVENTS, *(f"kvm/{e}" for e in has.kvm_events)]
    due += ["kvm/kvm_page_fault"]
    due += ["apf/mm_fault", "apf/mm_fault_ret"] if probed else []
    left_out = _UNLESS_BOOT if boots else ()
    missing = sorted({e for e in due if e not in recorded and e not in left_out})
    if missing:
        yield f"facts.json: trace_events does not name {', '.join(missing)}, which the host has"
    if not any(e in recorded for e in _REPEATED):
        yield f"facts.json: trace_events names neither {' nor '.join(_REPEATED)}"
    if formats and not boots and set(formats) != set(recorded):
        other = sorted(set(formats) ^ set(recorded))
        yield f"facts.json: trace_events and the formats saved beside the trace part: {', '.join(other)}"
    if len(set(recorded)) != len(recorded):
        yield "facts.json: trace_events names an event twice"


def trace_problems(has: HostHas, trace: Trace, stats: TraceStats, recorded: Sequence[str]) -> Iterator[str]:
    """The trace's lines against the kernel's own counts, CPU by CPU, and against the events said to be recorded."""
    lines = Counter(dict.fromkeys(stats.cpus, 0))
    lines.update(line.cpu for line in trace.lines)
    lines.update(trace.folded)
    there = sum(lines.values())
    for cpu, count in sorted(lines.items()):
        row = stats.cpus.get(cpu)
        if row is None:
            yield f"trace/stats.json has no CPU {cpu}, the trace has {count} events of it"
        elif row.entries != count + row.left_out:
            yield (
                f"trace/events.txt has {count} events of CPU {cpu}, the kernel counted {row.entries}:"
                " the trace was cut or edited"
            )
    if sorted(stats.cpus) != list(range(len(stats.cpus))) or len(stats.cpus) < has.cpus:
        yield f"trace/stats.json: it is of the CPUs {sorted(stats.cpus)}, the host has {has.cpus}"
    if any(min(astuple(row)) < 0 for row in stats.cpus.values()):
        yield "trace/stats.json: a count below zero"
    if trace.written is None:
        yield "trace/events.txt: no line says how many events were written"
    elif trace.written != (
        (due := there + sum(c.left_out for c in stats.cpus.values())),
        due + sum(c.overrun for c in stats.cpus.values()),
    ):
        yield (
            f"trace/events.txt says that {trace.written[0]} of {trace.written[1]} events are there, it has"
            f" {there}, and the kernel counted {sum(c.overrun for c in stats.cpus.values())} overwritten"
        )
    for old, new in pairwise(trace.lines):
        if new.t_ns < old.t_ns:  # kernel/trace/trace.c:__find_next_entry merges the CPUs by time
            yield f"trace/events.txt:{new.number}: stands behind a later event: the CPUs were merged by another hand"
            break
    names = {event.rpartition("/")[2] for event in recorded}
    strange = sorted(({line.event for line in trace.lines} | trace.folded_events) - names)
    if strange:
        yield f"facts.json: trace_events does not name {', '.join(strange)}, which the trace has"


def run_problems(host: HostFacts, run: RunFacts) -> Iterator[str]:
    """facts.json against itself: what a run had, its host has."""
    recorded = run.trace_events
    strange = [e for e in recorded if e.startswith("kvm/") and e.removeprefix("kvm/") not in host.kvm_events]
    probes = any(e.startswith("apf/") for e in recorded)
    kvm = run.accel == "kvm"
    for what, there in (
        ("run.accel", run.accel in ("kvm", "tcg")),
        ("host.release", bool(re.match(r"\d+\.\d+", host.release))),
        ("host.kvm_events", not strange),
        ("host.kprobe_events", host.kprobe_events or not probes),
        ("host.tracefs", bool(host.tracefs) or not recorded),
        ("host.kvm_device", host.kvm_device or not kvm),
        ("host.cgroup_memory", host.cgroup_memory or not kvm),
        ("host.cgroup2", bool(host.cgroup2) or not host.cgroup_memory),
        ("run.mm_fault_probe", run.mm_fault_probe == ("apf/mm_fault" in recorded)),
        ("run.trace_clock", run.trace_clock == "mono"),
    ):
        if not there:
            yield f"facts.json: {what} is not what the rest of it says of this host"


def shown_problems(host: HostFacts, name: str, seen: CounterSnapshot) -> Iterator[str]:
    """A section of the counters that is of what the host is said not to have."""
    for section, there, has in (
        ("vmstat: pswpin", "pswpin" in seen.vmstat, host.vm_event_counters),
        ("memory_stat", bool(seen.memory_stat), host.cgroup_memory),
        ("kvm", bool(seen.kvm), bool(host.debugfs)),
    ):
        if there and not has:
            yield f"{name}: {section} is there, facts.json says that the host has no such thing"
    for section, text in (("swaps", seen.swaps), ("interrupts", seen.interrupts)):
        if not text:
            yield f"{name}: {section} is empty, which no kernel prints"


_WORD = 1 << 64


def counter_problems(has: HostHas, before: CounterSnapshot, after: CounterSnapshot) -> Iterator[str]:
    """Each section of the counters that the host has, in both snapshots, with what must have moved."""
    for name, old, new, due in (
        ("vmstat", before.vmstat, after.vmstat, _VMSTAT if has.vm_event_counters else ()),
        ("memory_stat", before.memory_stat, after.memory_stat, ("pgmajfault",) if has.cgroup_memory else ()),
        ("kvm", before.kvm, after.kvm, _kvm(has.release) if has.debugfs else ()),
    ):
        yield from _section(name, old, new, due)
    if before.vmstat == after.vmstat or (before.kvm and before.kvm == after.kvm):
        yield "counters: before and after are the same, though a guest ran between them"
    for when, snapshot in (("before", before), ("after", after)):
        threads = (n for faults in snapshot.threads.values() for n in (faults.maj_flt, faults.min_flt))
        numbers = (*threads, snapshot.anon_pages or 0, *(snapshot.other_majors or ()))
        if not all(0 <= n < _WORD for n in numbers):
            yield f"counters/{when}.json: threads, anon_pages or other_majors: not a number that a kernel counts to"
    if (before.anon_pages is None) != (after.anon_pages is None):
        yield "counters: anon_pages is there only once"


def _section(name: str, old: Mapping[str, int], new: Mapping[str, int], due: Sequence[str]) -> Iterator[str]:
    for when, section in (("before", old), ("after", new)):
        odd = next((counter for counter, value in section.items() if not 0 <= value < _WORD), "")
        if odd:
            yield f"counters/{when}.json: {name}: {odd} is not a number that a kernel counts to"
            return
    for counter in due:
        for when, section in (("before", old), ("after", new)):
            if counter not in section:
                yield f"counters/{when}.json: {name} has no {counter}, which the host has"
                return
    only = sorted(set(old) ^ set(new))
    if only:
        yield f"counters: {name}: {', '.join(only[:4])} is there only once"


def _kvm(release: str) -> tuple[str, ...]:
    match = re.match(r"(\d+)\.(\d+)", release)
    return _KVM + _KVM_5_19 if match and (int(match[1]), int(match[2])) >= (5, 19) else _KVM
