# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest's own report against what its kernel must have done (docs/formats/capture.md: guest/result.txt)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from harness.contract.capture import LinuxResult
from harness.contract.plan import Plan
from harness.evidence.decode import Evidence
from harness.judge.verdict_types import Finding
from harness.model.events import Kind
from harness.model.simulation.situation import Prediction


def match_linux(evidence: Evidence, prediction: Prediction) -> Iterator[Finding]:
    """What the guest found in its memory, and the HYP row of /proc/interrupts per CPU against the host's trace.

    sysvec_kvm_asyncpf_interrupt counts one for each token and one for the wake-all (behaviour.md C); a guest that never
    enabled the feature has no such row.  A run that did not come to its end has no report: its end is the finding.
    """
    plan, result = evidence.plan, evidence.result
    if result is None:
        return
    yield from _touched(plan, result)
    tokens = Counter(e.vcpu for e in evidence.events if e.kind is Kind.INJ and not e.flag and e.value == 0)
    boots = plan.guest.workload == "boot"
    enabled = prediction.totals["RDY_ALL"].low > 0 if boots else "no-kvmapf" not in plan.guest.cmdline.split()
    before, after = result.hyp[0], result.hyp[-1]
    if not enabled:
        if after is not None:
            yield Finding("total", f"a HYP row is there ({after}), but its vector must not be installed")
        return
    if after is None:
        yield Finding("total", "no HYP row: the guest did not enable async page faults")
        return
    for cpu in range(plan.guest.vcpus):
        seen = _count(after, cpu) - (0 if boots or before is None else _count(before, cpu))
        want = tokens[cpu] + (1 if boots else 0)
        if seen != want:
            yield Finding("D16", f"CPU {cpu}: HYP counted {seen}, the host injected {tokens[cpu]} tokens: {want} due")


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


def _count(row: tuple[int, ...], cpu: int) -> int:
    return row[cpu] if cpu < len(row) else 0
