# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules about totals: what the trace counted against the counters of host and guest, once, at the end."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from harness.contract.probe_abi import PAGE_SIZE, SHARED_GPA
from harness.model.kernels import KernelModel, Variant
from harness.model.protocol.checker_types import Counts, Violation
from harness.model.protocol.rules import RuleContext

_GUEST_PANIC, _IN_KERNEL_MODE = "Host injected async #PF", "in kernel mode"
_BALANCE = ("pf_taken", "pf_fixed", "pf_spurious", "pf_emulate")


def check_totals(
    kernel: KernelModel,
    context: RuleContext,
    counts: Sequence[Counts],
    compared: Sequence[tuple[int, int]],
    done_gfns: frozenset[int],
    untold: Sequence[tuple[int, Mapping[int, bool]]],
) -> Iterator[Violation]:
    """All rules about totals whose context is known.

    :param compared: by vCPU, how many tokens and readies of the guest's log the trace has accounted for.
    :param done_gfns: those frames of ``context.private_file`` and ``context.pages_after`` that had a DONE.
    :param untold: by vCPU, of how many tokens of its L2 an L1 was not told, and the shared areas that got the
        flags of tokens, with whether the last one is such.
    """
    yield from _tokens(context, counts)
    yield from _interrupts(context, counts)
    yield from _halts(kernel, context)
    yield from _logs(context)
    yield from _majors(kernel, context, counts)
    yield from _balance(kernel, context, counts)
    yield from _shared_area(context, compared, untold)
    yield from _left_flags(context, untold)
    yield from _pages(context, done_gfns)
    yield from (_total("D57", early) for early in context.early_retries or ())
    yield from (_total("D58", forbidden) for forbidden in context.forbidden_retries or ())
    yield from (_total("D59", stray) for stray in context.stray_wakes or ())
    yield from (_total("D63", deaf) for deaf in context.deaf_vcpus or ())
    yield from (_total("D60", slot) for slot in context.swap_slots or ())
    yield from (_total("D65", lost) for lost in context.lost_refaults or ())
    yield from (_total("D66", page) for page in context.misflagged_pages or ())
    yield from (_total("D67", event) for event in context.events_left or ())
    yield from (_total("D68", page) for page in context.lost_words or ())
    yield from (_total("D70", token) for token in context.overwritten_tokens or ())
    yield from (_total("D71", again) for again in context.asked_again or ())
    yield from (_total("D72", kept) for kept in context.kept_lock or ())
    yield from (_total("D73", lost) for lost in context.uncounted_faults or ())
    yield from (_total("D74", wait) for wait in context.userfault_waits or ())
    yield from (_total("D75", pages) for pages in context.uncounted_pages or ())
    for rule, gfns, what in (
        ("D61", context.unlisted_pages, "is on no list from which the host could reclaim it"),
        ("D64", context.pages_of_others, "is not charged to the cgroup of the VMM"),
        ("D62", context.clean_pages, "has no swap slot any more, and is not dirty"),
    ):
        if gfns:
            yield _total(rule, f"page {gfns[0]:#x}{f' (and {len(gfns) - 1} more)' if len(gfns) > 1 else ''} {what}")
    if context.memory_left:
        yield _total("D49", f"the VMM is gone, and {context.memory_left} pages of its memory are still there")
    if context.ram_file_open:
        yield _total("D49", "the VMM is gone, and its RAM file is still open")
    if context.ram_file_locked:
        yield _total("D49", "the VMM is gone, and somebody holds the lock of its RAM file")
    if context.slots_left:
        yield _total("D49", f"the VMM is gone, and {context.slots_left} slots of the swap device are still taken")
    if context.works_left:
        yield _total("D49", f"the VMM is gone, and {context.works_left} works were not freed")
    if context.contexts_left:
        yield _total("D49", f"the VMM is gone, and {context.contexts_left} contexts of a userfaultfd were not freed")


def _total(rule: str, message: str, vcpu: int = -1) -> Violation:
    return Violation(rule, None, message, (), vcpu)


def _tokens(context: RuleContext, counts: Sequence[Counts]) -> Iterator[Violation]:
    """D14: pf_guest, which counts a token when it is queued."""
    tokens, undecided = sum(c.npt for c in counts), sum(c.undecided for c in counts)
    if context.pf_guest is not None and not tokens <= context.pf_guest <= tokens + undecided:
        more = f", {undecided} more may have been queued" if undecided else ""
        yield _total("D14", f"pf_guest grew by {context.pf_guest}, {tokens} tokens were injected{more}")


def _interrupts(context: RuleContext, counts: Sequence[Counts]) -> Iterator[Violation]:
    """D16: the guest's count of interrupts."""
    for vcpu, grown in (context.hyp or {}).items():
        accepted, lost = counts[vcpu].acc, counts[vcpu].acc_lost
        if grown != accepted - lost:
            but = f", {lost} of them below vector 16 or taken away by a reset" if lost else ""
            yield _total("D16", f"the guest counted {grown} interrupts, its LAPIC accepted {accepted}{but}", vcpu)


def _halts(kernel: KernelModel, context: RuleContext) -> Iterator[Violation]:
    """D25: halt_exits and halt_attempted_poll."""
    stats = context.kvm_stats
    if stats is None or context.guest_hlts is None:
        return
    exits = stats.get("halt_exits")
    if exits is not None and (exits < context.guest_hlts or (context.hlts_end and exits != context.guest_hlts)):
        yield _total("D25", f"halt_exits grew by {exits}, the guest executed HLT {context.guest_hlts} times")
    polls = stats.get("halt_attempted_poll")
    if polls is None or context.halts is None or kernel.halt_polls:
        return
    if context.hlts_end and polls > context.halts:
        yield _total("D25", f"halt_attempted_poll grew by {polls}, vCPU threads went to halt {context.halts} times")


def _logs(context: RuleContext) -> Iterator[Violation]:
    """D28: what guest and host logged."""
    cried = context.guest_trouble or ()
    due = [line for line in cried if context.guest_panics and _GUEST_PANIC in line and _IN_KERNEL_MODE in line]
    if context.guest_panics and context.guest_trouble is not None and not due:
        yield _total("D28", f'the guest was to panic, and has not said "{_GUEST_PANIC} {_IN_KERNEL_MODE}"')
    yield from (_total("D28", f"the guest says: {line}") for line in cried if line not in due)
    said = context.host_trouble or ()
    for line in said:
        if not any(part in line for part in context.host_warns):
            yield _total("D28", f"the host says: {line}")
    told = context.host_trouble is not None and context.warn_once_cleared
    for part in context.host_warns if told else ():
        if not any(part in line for line in said):
            yield _total("D28", f'the host was to warn, and has not said "{part}"')


def _majors(kernel: KernelModel, context: RuleContext, counts: Sequence[Counts]) -> Iterator[Violation]:
    """D31: the faults that became NP add nothing to maj_flt of the vCPU thread (A.10)."""
    if kernel.variant is Variant.SYNC:
        return
    for vcpu, grown in (context.major_faults or {}).items():
        predicted = (context.sync_majors or {}).get(vcpu)
        if predicted is not None and not predicted.allows(grown):
            message = f"maj_flt grew by {grown}, the faults that did not become NP explain {predicted}"
            yield _total("D31", f"{message} (there were {counts[vcpu].np} NPs)", vcpu)


def _balance(kernel: KernelModel, context: RuleContext, counts: Sequence[Counts]) -> Iterator[Violation]:
    """D35: what became of the faults that KVM took."""
    stats = context.kvm_stats
    if stats is None or any(name not in stats for name in _BALANCE):
        return  # 5.10 has no pf_taken
    seen = sum(c.pf for c in counts)
    if seen and context.all_recorded and stats["pf_taken"] > seen:
        yield _total("D35", f"pf_taken grew by {stats['pf_taken']}, and the guest made {seen} page faults")
    if context.fixable is not None and stats["pf_fixed"] > context.fixable:
        yield _total(
            "D35", f"pf_fixed grew by {stats['pf_fixed']}, where {context.fixable} entries can have been fixed"
        )
    left = stats["pf_taken"] - sum(stats[name] for name in _BALANCE[1:])
    async_faults = sum(c.np + c.rep for c in counts)
    ready = sum(c.rdy for c in counts)
    if context.fixed_for_ready is not None:
        ready = min(ready, context.fixed_for_ready)
    low = async_faults - ready - context.unfinished
    if left < low:
        yield _total("D35", f"pf_taken - pf_fixed - pf_spurious - pf_emulate = {left}, at least {low} expected")
    elif context.unfixed is not None and context.all_recorded and left > context.unfixed:
        most = f"at most {context.unfixed} expected"
        yield _total("D35", f"pf_taken - pf_fixed - pf_spurious - pf_emulate = {left}, {most}")


def _left_flags(context: RuleContext, untold: Sequence[tuple[int, Mapping[int, bool]]]) -> Iterator[Violation]:
    """D46: what L1 found where no token was."""
    for vcpu, found in (context.guest_flags or {}).items():
        if found and not untold[vcpu][0]:
            more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
            yield _total("D46", f"a flag is left behind, and every token was told: {found[0]}{more}", vcpu)


def _flags(what: str, flags: int, vcpu: int = -1, *, untold: bool) -> Iterator[Violation]:
    """The flags word of an area at the end, and whether nobody was told of the last token whose flags it got."""
    if flags and not untold:
        yield _total("D39", f"{what} is {flags:#x} at the end, and no token waits for its handler", vcpu)
    elif untold and flags != 1:
        yield _total("D46", f"{what} is {flags:#x} at the end, and nobody has seen the last token", vcpu)


def _shared_area(
    context: RuleContext, compared: Sequence[tuple[int, int]], untold: Sequence[tuple[int, Mapping[int, bool]]]
) -> Iterator[Violation]:
    """D39, D46: what the guest saw in the shared area."""
    written = {gpa: last for _, areas in untold for gpa, last in areas.items()}
    for vcpu, clean in (context.shared_tail_zero or {}).items():
        if not clean:
            yield _total("D39", "the host wrote beyond byte 7 of the shared area", vcpu)
    for vcpu, flags in (context.shared_flags or {}).items():
        yield from _flags("the flags word", flags, vcpu, untold=written.get(SHARED_GPA + PAGE_SIZE * vcpu, False))
    for gpa, (flags, clean) in (context.other_areas or {}).items():
        if gpa in written or gpa != context.area_of_data:
            yield from _flags(f"the flags word at {gpa:#x}", flags, untold=written.get(gpa, False))
        if not clean:
            yield _total("D39", f"the host wrote beyond byte 7 of the shared area at {gpa:#x}")
    for vcpu, tokens in (context.guest_tokens or {}).items():
        if context.guest_ended and len(tokens) < compared[vcpu][0]:
            yield _total("D39", f"{compared[vcpu][0]} tokens were injected, the guest saw {len(tokens)}", vcpu)
        if context.log_ends_first and len(tokens) > compared[vcpu][0]:
            yield _total("D39", f"the guest saw {len(tokens)} tokens, {compared[vcpu][0]} were injected", vcpu)
    for vcpu, readies in (context.guest_readies or {}).items():
        if context.log_ends_first and len(readies) > compared[vcpu][1]:
            yield _total("D39", f"the guest saw {len(readies)} ready tokens, {compared[vcpu][1]} were written", vcpu)


def _pages(context: RuleContext, done_gfns: frozenset[int]) -> Iterator[Violation]:
    """D41, D43: the pages afterwards."""
    if context.private_file is not None and context.rss_anon_pages is not None:
        copied = len(done_gfns & context.private_file)
        if context.rss_anon_pages < copied:
            grown = context.rss_anon_pages
            yield _total("D41", f"{copied} pages of a private file had DONE, RssAnon grew by {grown} pages")
    for gfn, page in (context.pages_after or {}).items():
        if page.writable and gfn not in done_gfns:
            yield _total("D43", f"frame {gfn:#x} was read by the vCPU thread itself, and is writable in the host")
        elif not page.writable and gfn in done_gfns:
            yield _total("D43", f"frame {gfn:#x} was read asynchronously, but it is not writable in the host")
