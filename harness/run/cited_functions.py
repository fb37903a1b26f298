# SPDX-License-Identifier: GPL-2.0-or-later
"""What a verdict hangs on that reads differently in the kernel under test than in the trees that were read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from harness.artifacts.kernels.citations import Difference
from harness.judge.verdict_types import Finding, Verdict
from harness.model.protocol.rules import RULES

_NAME = re.compile(r"\b[a-z_]\w*[a-z]\w*\b")


def with_differences(verdict: Verdict, difference: Difference | None) -> Verdict:
    """The verdict with a note on each finding that hangs on such a function, and on the whole if there are any at all.

    A finding hangs on the functions that its rule names as its source, or that the model names as the reason of its
    item; a total on those of all items.
    """
    if difference is None or not (difference.changed or difference.gone):
        return verdict
    other = {cited.rpartition(":")[2] for cited in (*difference.changed, *difference.gone)}
    marked = []
    for finding in verdict.findings:
        names = sorted(other & set(_stands_on(finding, verdict)))
        words = (
            f"{finding.message} [the model stands on {', '.join(names)}: not as in {difference.nearest} in this tree]"
        )
        marked.append(replace(finding, message=words) if names else finding)
    return replace(verdict, findings=tuple(marked), notes=(*verdict.notes, str(difference)))


def _stands_on(finding: Finding, verdict: Verdict) -> Iterator[str]:
    """Names in what a finding hangs on; more than those of functions."""
    rule = RULES.get(finding.rule)
    if rule is not None:
        yield from _NAME.findall(rule.source)
    for row in verdict.items:
        if row.index == finding.item or finding.rule == "total":
            yield from _NAME.findall(row.why)
