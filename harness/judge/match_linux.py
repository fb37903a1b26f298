# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest's own report against what its kernel must have done (docs/formats/capture.md: guest/result.txt)."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from harness.contract.capture import LinuxResult
from harness.contract.plan import Plan
from harness.errors import CaptureDamaged
from harness.evidence.decode import Evidence
from harness.evidence.linux_result import RESULT_PORT
from harness.judge.verdict_types import Finding
from harness.model.events import HYPERVISOR_CALLBACK_VECTOR, Event, Kind
from harness.prediction import linux_guest

_IO_EXIT = re.compile(
    r"reason (?:io|EXIT_IOIO|npf_io|IO_INSTRUCTION|EXIT_REASON_IO_INSTRUCTION)\b.*?info1? (?:0x)?([0-9a-f]+)"
)


def match_linux(evidence: Evidence) -> Iterator[Finding]:
    """What the guest found in its memory, and the HYP row of /proc/interrupts per CPU against the host's trace.

    sysvec_kvm_asyncpf_interrupt counts one for each token and one for the wake-all (behaviour.md C); a guest that never
    enabled the feature has no such row.  A run that did not come to its end has no report: its end is the finding.
    """
    plan, result = evidence.plan, evidence.result
    if result is None:
        return
    yield from _touched(plan, result)
    guest = linux_guest(plan)
    told = any(e.flag for e in evidence.of(Kind.L2_EXIT))
    if guest.runs_l2 and guest.enables and guest.vmexit_offered and not told:
        yield Finding("total", "no token of its L2 reached the guest, so that nothing was tried", about="L2_EXIT")
    boots, enabled = guest.traced_from_boot, guest.enables
    before, after = result.hyp[0], result.hyp[-1]
    if not enabled:
        if after is not None:
            yield Finding("total", f"a HYP row is there ({after}), but its vector must not be installed")
        return
    if after is None:
        yield Finding("total", "no HYP row: the guest did not enable async page faults")
        return
    due = interrupts_at_last_hyp(
        evidence.of(Kind.EXIT, Kind.VIRQ, Kind.ACC), evidence.text("guest/result.txt"), plan.guest.vcpus,
        injected=evidence.has(Kind.VIRQ),
    )  # fmt: skip
    for cpu, (low, high) in enumerate(due):
        seen = _count(after, cpu) - (0 if boots or before is None else _count(before, cpu))
        if not low <= seen <= high:
            text = str(low) if low == high else f"{low} to {high}"
            yield Finding("D16", f"CPU {cpu}: HYP counted {seen} interrupts, the host gave it {text} until then")


def interrupts_at_last_hyp(
    events: Sequence[Event], result: str, vcpus: int, *, injected: bool
) -> tuple[tuple[int, int], ...]:
    """By vCPU, how many interrupts of the Linux guest's vector it had been given when it read its last HYP row.

    It wrote the line before, read /proc/interrupts, and wrote the row: between these two writes to the port, each
    byte an exit, lies the reading.  On another vCPU the handler may just not have counted the last one.

    :param injected: KVM injects interrupts; else, with APICv or AVIC, they are given once they are accepted.
    :raise CaptureDamaged: the trace lacks the exits.
    """
    lines = result.splitlines(keepends=True)
    last = max((i for i, line in enumerate(lines) if line.startswith("HYP")), default=-1)
    written = sum(len(line.encode()) for line in lines[last:])
    times = [e.t_ns for e in events if e.kind is Kind.EXIT and _port(e.text) == RESULT_PORT]
    if last < 1 or len(times) <= written:
        raise CaptureDamaged(f"the trace has {len(times)} writes to the result port, the last HYP row alone needs more")
    before, row = times[-written - 1], times[-written]
    kind = Kind.VIRQ if injected else Kind.ACC
    given = [e for e in events if e.kind is kind and e.value == HYPERVISOR_CALLBACK_VECTOR and not e.flag]
    late = int(vcpus > 1)
    return tuple(
        (
            max(0, sum(e.vcpu == v and e.t_ns < before for e in given) - late),
            sum(e.vcpu == v and e.t_ns < row for e in given),
        )
        for v in range(vcpus)
    )


def _port(text: str) -> int:
    """The port of an I/O exit, bits 31:16 of the exit information (SVM and VMX alike); -1 for another exit."""
    found = _IO_EXIT.search(text)
    return int(found[1], 16) >> 16 & 0xFFFF if found else -1


def _touched(plan: Plan, result: LinuxResult) -> Iterator[Finding]:
    """The workload "touch" read one byte of each of its pages and compared it with what it had written."""
    if result.touched is None:
        return
    if result.touched.wrong:
        yield Finding("guest-log", f"the guest read other bytes than it wrote in {result.touched.wrong} of its pages")
    if result.touched.pages != plan.guest.workload_pages:
        yield Finding(
            "guest-log", f"the guest touched {result.touched.pages} pages, the plan has {plan.guest.workload_pages}"
        )
    if result.faults is not None and result.faults.major:
        yield Finding("guest-log", f"the guest counted {result.faults.major} major faults of its own: it has no swap")


def _count(row: tuple[int, ...], cpu: int) -> int:
    return row[cpu] if cpu < len(row) else 0
