# SPDX-License-Identifier: GPL-2.0-or-later
"""Trace lines -> model events, with the thread's role resolved.  Formats: behaviour.md B.13 (arch/x86/kvm/trace.h).

Both spellings of each tracepoint (5.10 and 6.1/6.12) are read; which one a kernel prints decides nothing here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from harness.errors import CaptureDamaged
from harness.evidence.ftrace import Line
from harness.model.events import CR0_WRITTEN, INIT, SIPI, Event, Kind

_Filler = Callable[[Event, "re.Match[str]"], None] | None
"""Puts what a pattern found into the event; None: its text has nothing that is used."""


def _try(e: Event, m: re.Match[str]) -> None:
    e.gpa = int(m[1], 16)
    if e.gpa >> 12 != int(m[2], 16):
        e.data = int(m[2], 16)  # shadow paging: gva and gfn are different things


def _pf(e: Event, m: re.Match[str]) -> None:
    e.gpa, e.value = int(m[2], 16), int(m[3], 16)
    e.data = int(m[1] or "0", 16)


def _token(e: Event, m: re.Match[str]) -> None:
    e.token, e.gpa = int(m[1], 16), int(m[2], 16)


def _done(e: Event, m: re.Match[str]) -> None:
    e.gpa, e.hva = int(m[1], 16), int(m[2], 16)


def _exception(e: Event, m: re.Match[str]) -> None:
    e.kind = Kind.INJ if m[1] == "#PF" else Kind.INJ_OTHER
    e.value = int(m[2], 16) if m[2] else 0
    e.flag = m[3] is not None


def _accept(e: Event, m: re.Match[str]) -> None:
    e.data, e.value, e.flag = int(m[1], 16), int(m[2]), m[4] == "level"
    e.token = {"INIT": INIT, "SIPI": SIPI}.get(m[3], int(m[3] != "Fixed"))  # arch/x86/kvm/trace.h:kvm_deliver_mode


def _msr(e: Event, m: re.Match[str]) -> None:
    e.kind = Kind.WRMSR if m[1] == "write" else Kind.RDMSR
    e.value, e.data, e.flag = int(m[2], 16), int(m[3], 16), m[4] is not None


def _bio(e: Event, m: re.Match[str]) -> None:
    e.dev = int(m[1]) << 20 | int(m[2])
    e.flag = "R" in m[3]
    e.value, e.data = int(m[4]), int(m[5])


def _bio_end(e: Event, m: re.Match[str]) -> None:
    _bio(e, m)
    e.token = int(m[6])


def _virq(e: Event, m: re.Match[str]) -> None:
    e.value = int(m[1], 16) if m[1] else int(m[2])
    e.flag = m[3] is not None


def _hex(field: str) -> _Filler:
    def fill(e: Event, m: re.Match[str]) -> None:
        setattr(e, field, int(m[1], 16))

    return fill


_EVENT_VALID, _INTERRUPT, _NMI, _EXCEPTION, _BREAKPOINT, _OVERFLOW = 1 << 31, 0, 2, 3, 3, 4


def _exit(e: Event, m: re.Match[str]) -> None:
    """A page fault while an event was being delivered: SVM's EXITINTINFO, VMX's IDT-vectoring information, which KVM
    reinjects (svm_complete_interrupts, __vmx_complete_interrupts); an INT3 or INTO of SVM is executed again."""
    info = int(m[1], 16) if m[1] else 0
    e.value = CR0_WRITTEN if m[2] else 0
    if info & _EVENT_VALID:
        kind, vector = info >> 8 & 7, info & 0xFF
        soft = vector in (_BREAKPOINT, _OVERFLOW)
        e.flag = kind in (_INTERRUPT, _NMI) or (kind == _EXCEPTION and not soft)


def _reason(e: Event, m: re.Match[str]) -> None:
    e.value = int(m[1])


def _eoi(e: Event, m: re.Match[str]) -> None:
    e.data, e.value = int(m[1], 16), int(m[2])


def _range(e: Event, m: re.Match[str]) -> None:
    e.hva, e.data = int(m[1], 16), int(m[2], 16)


def _l2_out(e: Event, m: re.Match[str]) -> None:
    e.flag = bool(m[1])


def _l2_exit(e: Event, m: re.Match[str]) -> None:
    e.flag, e.data, e.token = m[1] == "PF excp", int(m[2], 16), int(m[3], 16)


def _mm_fault(e: Event, m: re.Match[str]) -> None:
    e.hva, e.value = int(m[1], 16), int(m[2], 16)


_A = re.ASCII
"""No kernel prints digits of another script, which ``\\d`` would take as well."""
_REPEATED = (Kind.REP, re.compile(r"gva = (0x[0-9a-f]+|0), gfn = (0x[0-9a-f]+|0)", _A), _try)
_FORMATS: Mapping[str, tuple[Kind, re.Pattern[str], _Filler]] = {
    "kvm_page_fault": (
        Kind.PF,
        re.compile(
            r"(?:vcpu \d+ rip 0x([0-9a-f]+) )?address (?:0x)?([0-9a-f]+) error_code (?:0x)?([0-9a-f]+)", re.ASCII
        ),
        _pf,
    ),
    "kvm_try_async_get_page": (Kind.TRY, _REPEATED[1], _try),
    "kvm_async_pf_repeated_fault": _REPEATED,
    "kvm_async_pf_doublefault": _REPEATED,
    "kvm_async_pf_not_present": (Kind.NP, re.compile(r"token (0x[0-9a-f]+|0) gva (0x[0-9a-f]+|0)", _A), _token),
    "kvm_async_pf_ready": (Kind.RDY, re.compile(r"token (0x[0-9a-f]+|0) gva (0x[0-9a-f]+|0)", _A), _token),
    "kvm_async_pf_completed": (Kind.DONE, re.compile(r"gva (0x[0-9a-f]+|0) address (0x[0-9a-f]+|0)", _A), _done),
    "kvm_inj_exception": (
        Kind.INJ,
        re.compile(r"(#?\w+)(?: \((0x[0-9a-f]+)\))?( \[reinjected\])?\s*$", _A),
        _exception,
    ),
    "kvm_apic_accept_irq": (Kind.ACC, re.compile(r"apicid ([0-9a-f]+) vec (\d+) \((\w+)\|(edge|level)\)", _A), _accept),
    "kvm_entry": (Kind.ENTRY, re.compile(r"vcpu \d+", _A), None),
    "kvm_exit": (
        Kind.EXIT,
        re.compile(
            r"(?:(?:vcpu \d+ )?reason (?:(?:npf .*intr_info|EPT_VIOLATION .*info2) 0x([0-9a-f]+)"
            r"|(cr0_sel_write|write_cr0|CR_ACCESS .*info1 0x[0-9a-f]*0) ))?",
            _A,
        ),
        _exit,
    ),
    "kvm_msr": (Kind.WRMSR, re.compile(r"msr_(read|write) ([0-9a-f]+) = (0x[0-9a-f]+|0)( \(#GP\))?", _A), _msr),
    "block_bio_queue": (Kind.BIO, re.compile(r"(\d+),(\d+) (\w+) (\d+) \+ (\d+)", _A), _bio),
    "block_bio_complete": (
        Kind.BIO_END,
        re.compile(r"(\d+),(\d+) (\w+) (\d+) \+ (\d+) \[-?(\d+)\]", _A),
        _bio_end,
    ),
    "block_rq_complete": (
        Kind.BIO_END,
        re.compile(r"(\d+),(\d+) (\w+) \(.*?\) (\d+) \+ (\d+) (?:\w+,\d+,\d+ )?\[-?(\d+)\]", _A),
        _bio_end,
    ),
    "work_start": (Kind.WORK, re.compile(r"", _A), None),
    "work_end": (Kind.WORK_END, re.compile(r"", _A), None),
    "kick": (Kind.KICK, re.compile(r"", _A), None),
    "kvm_vcpu_wakeup": (Kind.WAKEUP, re.compile(r"", _A), None),
    "kvm_userspace_exit": (Kind.USER_EXIT, re.compile(r"reason .*\((\d+)\)", _A), _reason),
    "kvm_inj_virq": (
        Kind.VIRQ,
        re.compile(r"(?:(?:IRQ|Soft/INTn) (0x[0-9a-f]+)|irq (\d+))( \[reinjected\])?", _A),
        _virq,
    ),
    "kvm_eoi": (Kind.EOI, re.compile(r"apicid ([0-9a-f]+) vector (-1|\d+)", _A), _eoi),
    "kvm_unmap_hva_range": (Kind.UNMAP, re.compile(r".*range: (0x[0-9a-f]+|0) -- (0x[0-9a-f]+|0)", _A), _range),
    "unmap_hva_range": (Kind.UNMAP, re.compile(r"\(.*\) start=(0x[0-9a-f]+) end=(0x[0-9a-f]+)", _A), _range),
    "kvm_nested_vmenter": (Kind.L2_ENTRY, re.compile(r"rip: 0x[0-9a-f]+ vmc[bs]: ", _A), None),
    "kvm_nested_vmrun": (Kind.L2_ENTRY, re.compile(r"rip: 0x[0-9a-f]+ vmc[bs]: ", _A), None),
    "kvm_nested_vmexit": (Kind.L2_OUT, re.compile(r"vcpu \d+ reason (PF excp)?", _A), _l2_out),
    "kvm_nested_vmexit_inject": (
        Kind.L2_EXIT,
        re.compile(r"reason: (.+?) ext_inf1: 0x([0-9a-f]+) ext_inf2: 0x([0-9a-f]+) ", _A),
        _l2_exit,
    ),
    "kvm_nested_intr_vmexit": (Kind.L2_INTR, re.compile(r"rip: 0x[0-9a-f]+", _A), None),
    "mm_fault": (Kind.MM_FAULT, re.compile(r"\(.*\) addr=(0x[0-9a-f]+) flags=(0x[0-9a-f]+)", _A), _mm_fault),
    "mm_fault_ret": (Kind.MM_FAULT_RET, re.compile(r"\(.*\) ret=(0x[0-9a-f]+)", _A), _hex("value")),
}
_SEVERAL = {
    "kvm_msr": (Kind.WRMSR, Kind.RDMSR),
    "kvm_inj_exception": (Kind.INJ, Kind.INJ_OTHER),
    "sched_switch": (Kind.OUT, Kind.IN),
    "sched_waking": (Kind.WAKING,),
}


def kinds_of(names: Iterable[str]) -> frozenset[Kind]:
    """The kinds that a trace can have where these tracepoints were recorded ("system/event"); CLEAR always."""
    return frozenset({Kind.CLEAR}) | kinds(name.rpartition("/")[2] for name in names)


def kinds(events: Iterable[str]) -> frozenset[Kind]:
    """What events of these names can be."""
    found: set[Kind] = set()
    for event in events:
        found.update(_SEVERAL.get(event) or (k for k, *_ in filter(None, [_FORMATS.get(event)])))
    return frozenset(found)


_SWITCH = re.compile(
    r"prev_comm=.{0,16}? prev_pid=(\d+) prev_prio=-?\d+ prev_state=(\S+) ==> "
    r"next_comm=.{0,16}? next_pid=(\d+) next_prio=-?\d",
    _A,
)


def decode(
    lines: Iterable[Line], vcpu_tids: Iterable[int], apic_ids: Sequence[int], later_tids: Iterable[tuple[int, int]] = ()
) -> Iterator[Event]:
    """The events in the order of ``lines``.

    :param vcpu_tids: thread ids of the vCPU threads, in vCPU order.
    :param apic_ids: of the vCPUs, in the same order.
    :param later_tids: vCPU and thread id of each that came later.
    :raise CaptureDamaged: an event whose name is known and whose text is not as its kernel prints it, or a name
        that nothing here accounts for.
    """
    vcpu_of = {tid: index for index, tid in enumerate(vcpu_tids)}
    of_apic = {apic_id: index for index, apic_id in enumerate(apic_ids)}
    vcpu_of |= {tid: index for index, tid in later_tids}
    for line in lines:
        number, comm, tid, cpu, t_ns, name, text = line
        of_threads = _OF_THREADS.get(name)
        if of_threads is not None:
            yield from of_threads(line, vcpu_of)
            continue
        known = _FORMATS.get(name)
        if known is None:
            raise CaptureDamaged(f"trace/events.txt:{number}: nobody accounts for the event {name!r}")
        kind, pattern, fill = known
        match = pattern.match(text)
        if match is None:
            raise CaptureDamaged(f"trace/events.txt:{number}: cannot read {name}: {text!r}")
        worker = comm.startswith("kworker")
        # By position, not by name: this is done for each line of a trace.
        event = Event(
            kind, vcpu_of.get(tid, -1), t_ns, 0, 0, 0, 0, 0, False, worker, 0, tid, cpu, number, f"{name}: {text}"
        )
        if fill is not None:
            fill(event, match)
        if kind is Kind.ACC and event.data in of_apic:
            event.vcpu = of_apic[event.data]  # the vCPU that gets it; an IPI is accepted on the sender's thread
        yield event


def _switch(line: Line, vcpu_of: Mapping[int, int]) -> Iterator[Event]:
    match = _SWITCH.match(line.text)
    if match is None:
        raise CaptureDamaged(f"trace/events.txt:{line.number}: cannot read sched_switch: {line.text!r}")
    if int(match[1]) != line.tid:  # kernel/sched/core.c:__schedule: whoever leaves prints it
        raise CaptureDamaged(f"trace/events.txt:{line.number}: thread {line.tid} says that {match[1]} leaves its CPU")
    leaving, entering = vcpu_of.get(int(match[1])), vcpu_of.get(int(match[3]))
    if leaving is not None:
        yield _of_thread(Kind.OUT, line, leaving, int(match[1]), ord(match[2][0]))
    if entering is not None:
        yield _of_thread(Kind.IN, line, entering, int(match[3]), 0)


_WAKING = re.compile(r"comm=.{0,16}? pid=(\d+) prio=-?\d", _A)


def _waking(line: Line, vcpu_of: Mapping[int, int]) -> Iterator[Event]:
    match = _WAKING.match(line.text)
    if match is None:
        raise CaptureDamaged(f"trace/events.txt:{line.number}: cannot read sched_waking: {line.text!r}")
    woken = vcpu_of.get(int(match[1]))
    if woken is not None:
        event = _of_thread(Kind.WAKING, line, -1, line.tid, woken)
        event.data = int(match[1])
        yield event


def _of_thread(kind: Kind, line: Line, vcpu: int, tid: int, value: int) -> Event:
    worker, text = line.comm.startswith("kworker"), f"{line.event}: {line.text}"
    return Event(kind, vcpu, line.t_ns, value=value, worker=worker, tid=tid, cpu=line.cpu, line=line.number, text=text)


_OF_THREADS = {"sched_switch": _switch, "sched_waking": _waking}
"""Events about the threads that their texts name; whoever prints them is another."""
