# SPDX-License-Identifier: GPL-2.0-or-later
"""A verdict in ten lines: what should have happened, by which function, and what happened instead."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from harness.errors import ModelError
from harness.judge.verdict_types import OFFERED, Finding, ItemRow, Verdict, outcome_words, touch_words
from harness.model.kernels import find_kernel
from harness.model.outcomes import Outcome
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
_DECIDED_BY = {
    Outcome.TOKEN: (_X86, "kvm_can_deliver_async_pf"),
    Outcome.HALT: (_X86, "kvm_can_deliver_async_pf"),
    Outcome.REPEATED: (_X86, "kvm_find_async_pf_gfn"),
}
"""The kernel function that decides for an outcome, where the model's reason names none (6.1)."""


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
        decided = (Citation(*_DECIDED_BY[outcome]) for outcome in row.predicted if outcome in _DECIDED_BY)
        return tuple(_in_words(row.why, verdict.model)) or tuple(dict.fromkeys(decided))
    if finding.rule == "total":
        name = finding.message.partition(":")[0]
        return (Citation(*_COUNTED_BY[name]),) if name in _COUNTED_BY else ()
    return tuple(_in_source(finding.message)) if finding.name == OFFERED else ()


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
    lines = [f"{verdict.scenario}: {verdict.status}{by}"]
    lines.append(f"first divergence: {_name(first)} ({_where(verdict, first)})")
    lines.append(f"should have been: {_should(verdict, first)}")
    citations = cited_by(verdict, first)
    if citations:
        lines.append(f"done by: {', '.join(map(str, citations[:4]))}")
    lines.append(f"instead: {_instead(verdict, first)}")
    told = [first]
    traced = next((f for f in verdict.findings if f.line), None)
    at = next((row for row in verdict.timeline if row.marked), None)
    if at is not None and traced is not None:
        if traced is not first:
            where = _where(verdict, traced)
            lines.append(f"first in the trace: {_name(traced)}: {_instead(verdict, traced)} ({where})")
            told.append(traced)
        lines.append(f"the trace there: {at.text}")
    named = list(commits[:_MANY])
    lines += _others(verdict, told, MAX_LINES - len(lines) - len(named))
    return lines + [f"look at: {line}" for line in named[: MAX_LINES - len(lines)]]


def _name(finding: Finding) -> str:
    return f"{finding.rule}{f', item {finding.item}' if finding.item >= 0 else ''}"


def _where(verdict: Verdict, finding: Finding) -> str:
    """The line of the trace, and its time where that is the line that the verdict shows."""
    if not finding.line:
        return "no line of the trace"
    at = next((row for row in verdict.timeline if row.marked), None)
    shown = next((f for f in verdict.findings if f.line), None)
    when = f", {at.t_ns / 1e9:.6f} s" if at is not None and shown is finding else ""
    return f"trace/events.txt:{finding.line}{when}"


def _others(verdict: Verdict, told: Sequence[Finding], room: int) -> list[str]:
    """What else was found: the first of each kind, rules of the protocol before what follows from them; then how many
    more there are."""
    left = [f for f in verdict.findings if not any(f is one for one in told)]
    if not left or room < 1:
        return []
    known = {f.rule for f in told}
    kinds = [rule for rule in dict.fromkeys(f.rule for f in left) if rule not in known]
    kinds.sort(key=lambda rule: rule not in RULES)
    lines = []
    for rule in kinds[: room - 1]:
        mine = [f for f in left if f.rule == rule]
        count = f", {len(mine)} times" if len(mine) > 1 else ""
        lines.append(f"also {_name(mine[0])}{count}: {_instead(verdict, mine[0])}")
        left = [f for f in left if f.rule != rule]
    if left:
        lines.append(f"and {len(left)} more findings: {', '.join(dict.fromkeys(f.rule for f in left))}")
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
    if finding.name == OFFERED:
        return "the guest reads of each feature what QEMU was asked to show, if KVM offers it"
    return "nothing of this: it is not in the model's run, and nothing else explains it"


def _instead(verdict: Verdict, finding: Finding) -> str:
    """What was found, without what stands beside it anyway: which item it is, and why something else was predicted."""
    row = _row(verdict, finding)
    if row is None:
        return finding.message
    message = finding.message.removesuffix(f"; {row.why}").removeprefix(f"item {row.index} ({touch_words(row)})")
    message = message.removeprefix(": ").strip()
    seen = "" if "seen" in message else f" (seen: {outcome_words(row.seen)})"
    return f"{message}{seen}{f', blocked {row.blocked_ns / 1e6:.1f} ms' if row.blocked_ns else ''}"
