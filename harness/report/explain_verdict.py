# SPDX-License-Identifier: GPL-2.0-or-later
"""A verdict in ten lines: what should have happened, by which function, and what happened instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.errors import ModelError
from harness.judge.verdict_types import Finding, ItemRow, Verdict, outcome_words, touch_words
from harness.model.kernels import find_kernel
from harness.model.protocol.rules import RULES
from harness.model.walk.gup import cited_functions
from harness.report.verdict_text import reason_text

MAX_LINES = 10
_MANY = 3
_CITED = re.compile(r"([\w/-]+\.[chS]):(\w+)((?:, \w+)*)")
_WORD = re.compile(r"\w+")
_APF, _X86, _MMU = "virt/kvm/async_pf.c", "arch/x86/kvm/x86.c", "arch/x86/kvm/mmu/mmu.c"
_COUNTED_BY = {
    "PF": (_MMU, "kvm_mmu_page_fault"),
    "TRY": (_MMU, "kvm_faultin_pfn"),
    "NP": (_X86, "kvm_arch_async_page_not_present"),
    "NPt": (_X86, "kvm_can_deliver_async_pf"),
    "NPh": (_X86, "kvm_can_deliver_async_pf"),
    "REP": (_MMU, "kvm_faultin_pfn"),
    "DONE": (_APF, "async_pf_execute"),
    "RDY": (_APF, "kvm_check_async_pf_completion"),
    "RDY_ALL": (_APF, "kvm_async_pf_wakeup_all"),
    "INJ": (_X86, "kvm_arch_async_page_not_present"),
    "ACC": (_X86, "kvm_arch_async_page_present"),
    "ACK": (_X86, "kvm_set_msr_common"),
    "MAJ_V": ("mm/memory.c", "handle_mm_fault"),
    "MIN_V": ("mm/memory.c", "handle_mm_fault"),
    "MAJ_W": ("mm/memory.c", "handle_mm_fault"),
    "PGMAJ": ("mm/memory.c", "do_swap_page"),
    "PSWPIN": ("mm/page_io.c", "swap_readpage"),
    "RA": ("mm/swap_state.c", "swap_vma_readahead"),
    "BIO_V": ("mm/page_io.c", "swap_readpage"),
    "BIO_W": ("mm/page_io.c", "swap_readpage"),
}
"""The kernel function in which a total is counted, or its tracepoint stands (6.1)."""


@dataclass(frozen=True, slots=True)
class Citation:
    """A function of the kernel: a file of its tree, and the name."""

    file: str
    function: str

    def __str__(self) -> str:
        return f"{self.file}:{self.function}"


def cited_by(verdict: Verdict, finding: Finding) -> tuple[Citation, ...]:
    """The functions that should have done it, as far as a rule, the item's reason or the total names them."""
    rule = RULES.get(finding.rule)
    if rule is not None:
        return tuple(_in_source(rule.source))
    row = _row(verdict, finding)
    if row is not None:
        return tuple(_in_words(row.why, verdict.model))
    if finding.rule == "total":
        name = finding.message.partition(":")[0]
        return (Citation(*_COUNTED_BY[name]),) if name in _COUNTED_BY else ()
    return ()


def _in_source(source: str) -> Iterator[Citation]:
    """ "D05, B.7; virt/kvm/async_pf.c:f, g" names two functions of a file."""
    for file, first, more in _CITED.findall(source):
        for name in (first, *filter(None, more.split(", "))):
            yield Citation(file, name)


def _in_words(words: str, model: str) -> Iterator[Citation]:
    """Functions that a reason names, and that the model knows the file of."""
    try:
        kernel = find_kernel(model.partition("+")[0])  # as it is without fixes of findings
        known = {name: file for file, name in sorted(cited_functions(kernel))}
    except ModelError:
        known = {}
    for rule in RULES.values():
        known.update((c.function, c.file) for c in _in_source(rule.source))
    for word in dict.fromkeys(_WORD.findall(words)):
        if word in known:
            yield Citation(known[word], word)


def _row(verdict: Verdict, finding: Finding) -> ItemRow | None:
    return next((row for row in verdict.items if row.index == finding.item), None)


def explain_verdict(verdict: Verdict, commits: Sequence[str] = ()) -> list[str]:
    """At most ten lines.  ``commits``: one line each, of the functions that cited_by() names, newest first."""
    by = f" by {verdict.model}" if verdict.model else ""
    if not verdict.findings:
        lines = [f"{verdict.scenario}: {verdict.status}{by}"]
        lines += [f"because: {line}" for line in reason_text(verdict).splitlines()[:3]]
        if not verdict.reason and verdict.items:
            kinds = dict.fromkeys(outcome_words(row.seen) for row in verdict.items)
            lines.append(f"{len(verdict.items)} items are as predicted: {', '.join(list(kinds)[:6])}")
            named = [f"{t.name} {t.seen}" for t in verdict.columns]
            lines.append(f"counted: {', '.join(named)}; {sum(t.seen is not None for t in verdict.totals)} totals agree")
        return lines
    first = verdict.findings[0]
    at = next((row for row in verdict.timeline if row.marked), None)
    lines = [f"{verdict.scenario}: {verdict.status}{by}"]
    where = f"trace/events.txt:{first.line}" if first.line else "no line of the trace"
    when = f", {at.t_ns / 1e9:.6f} s" if at is not None else ""
    lines.append(f"first divergence: {first.rule}{f', item {first.item}' if first.item >= 0 else ''} ({where}{when})")
    lines.append(f"should have been: {_should(verdict, first)}")
    citations = cited_by(verdict, first)
    if citations:
        lines.append(f"done by: {', '.join(map(str, citations[:4]))}")
    lines.append(f"instead: {_instead(verdict, first)}")
    if at is not None:
        lines.append(f"the trace there: {at.text}")
    others = list(dict.fromkeys(f.rule for f in verdict.findings[1:]))
    if others:
        lines.append(f"and {len(verdict.findings) - 1} more findings: {', '.join(others)}")
    room = MAX_LINES - len(lines)
    lines += [f"look at: {line}" for line in commits[: min(room, _MANY)]]
    return lines


def _should(verdict: Verdict, finding: Finding) -> str:
    rule = RULES.get(finding.rule)
    if rule is not None:
        return rule.sentence
    row = _row(verdict, finding)
    if row is not None:
        return f"item {row.index} ({touch_words(row)}) {'/'.join(row.predicted)}; {row.why}".rstrip("; ")
    if finding.rule == "total":
        name = finding.message.partition(":")[0]
        total = next((t for t in verdict.totals if t.name == name), None)
        if total is not None:
            return f"{name} = {total.predicted}{f'; {total.predicted.reason}' if total.predicted.reason else ''}"
    return "nothing of this: it is not in the model's run, and nothing else explains it"


def _instead(verdict: Verdict, finding: Finding) -> str:
    row = _row(verdict, finding)
    seen = f" (seen: {outcome_words(row.seen)})" if row is not None else ""
    return f"{finding.message}{seen}"
