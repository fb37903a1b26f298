# SPDX-License-Identifier: GPL-2.0-or-later
"""A Linux guest's own report against what its kernel must have done (docs/formats.md: guest/result.txt)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from harness.errors import CaptureDamaged
from harness.evidence.decode import Evidence
from harness.judge.verdict_types import Finding
from harness.model.events import Kind
from harness.model.simulation.situation import Prediction


def match_linux(evidence: Evidence, prediction: Prediction) -> Iterator[Finding]:
    """The HYP row of /proc/interrupts per CPU against the host's trace: sysvec_kvm_asyncpf_interrupt counts one for
    each token and one for the wake-all (behaviour.md C); a guest that never enabled the feature has no such row."""
    plan = evidence.plan
    tokens = Counter(e.vcpu for e in evidence.events if e.kind is Kind.INJ and not e.flag and e.value == 0)
    boots = plan.guest.workload == "boot"
    enabled = prediction.totals["RDY_ALL"].low > 0 if boots else "no-kvmapf" not in plan.guest.cmdline.split()
    before, after = hyp_rows(evidence.result)
    if not enabled:
        if after is not None:
            yield Finding("total", f"a HYP row is there ({dict(after)}), but its vector must not be installed")
        return
    if after is None:
        yield Finding("total", "no HYP row: the guest did not enable async page faults")
        return
    for cpu in range(plan.guest.vcpus):
        seen = after.get(cpu, 0) - (0 if boots or before is None else before.get(cpu, 0))
        want = tokens[cpu] + (1 if boots else 0)
        if seen != want:
            yield Finding("D16", f"CPU {cpu}: HYP counted {seen}, the host injected {tokens[cpu]} tokens: {want} due")


def hyp_rows(result: tuple[str, ...]) -> tuple[Mapping[int, int] | None, Mapping[int, int] | None]:
    """(before, after) as CPU -> count; None where the guest says that it has no such row.

    :raise CaptureDamaged: the guest did not report, or not in a form that can be read.
    """
    rows: list[Mapping[int, int] | None] = []
    for line in result:
        words = line.split()
        if words[:1] != ["HYP"]:
            continue
        if words[1:] == ["none"]:
            rows.append(None)
            continue
        try:
            rows.append({cpu: int(n) for cpu, n in enumerate(words[1:])})
        except ValueError as exc:
            raise CaptureDamaged(f"guest/result.txt: {line!r}: {exc}") from exc
    if not rows:
        raise CaptureDamaged("guest/result.txt: the guest reported no HYP row, not even that it has none")
    return rows[0], rows[-1]
