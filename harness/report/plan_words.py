# SPDX-License-Identifier: GPL-2.0-or-later
"""A plan in words: what is prepared, what the guest's program does, what the host does meanwhile."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby

from harness.contract.gate import Rule, rule_of
from harness.contract.plan import By, GuestKind, HostAction, Item, Op, Plan, vcpu_ids
from harness.contract.words import Release, SwapKind
from harness.judge.verdict_types import touch_words
from harness.report.ranges import ranges

_MANY = 12
_WAITS = {
    Release.NP: "when {n} fault{s} or more {are} settled",
    Release.REPEATED: "when {n} repeated fault{s} {were} seen",
    Release.ASLEEP: "when {n} vCPU thread{s} sleep{es} on reads",
    Release.HALTED: "when {n} vCPU thread{s} sleep{es} in a halt with a page outstanding",
    Release.STEP: "when the host says so",
    Release.AFTER: "after {ms} ms",
    Release.OPEN: "as it comes",
}


def plan_words(plan: Plan) -> list[str]:
    """A sentence or two for each part of the plan."""
    return [_guest(plan), _memory(plan), *_pages(plan), *_programs(plan), *_host(plan)]


def _guest(plan: Plan) -> str:
    g = plan.guest
    vcpus = f"{g.vcpus} vCPU{'s' if g.vcpus > 1 else ''}"
    ids = vcpu_ids(g)
    vcpus += f" (APIC ids {', '.join(map(str, ids))})" if ids != tuple(range(g.vcpus)) else ""
    if g.kind is GuestKind.HOST_PROGRAM:
        return f"The program {g.workload!r} runs on the host; it is its own VMM, with {vcpus}."
    text = f"A {g.kind} guest with {vcpus} and {g.memory_mib} MiB (-machine {g.machine}, -cpu {g.cpu})"
    if g.kind is GuestKind.LINUX:
        pages = f" over {g.workload_pages} pages" if g.workload_pages else ""
        return f"{text} runs the workload {g.workload!r}{pages}{f', command line {g.cmdline!r}' if g.cmdline else ''}."
    apf = g.apf
    en = f"EN = {apf.en_flags:#x}, vector {apf.vector:#x}" if apf.en_flags else "EN is not written"
    return f"{text}; each vCPU sets up async page faults: {en}; it idles by {g.idle!r}."


def _memory(plan: Plan) -> str:
    m, s = plan.memory, plan.swap
    text = f"Its memory is {m.backing}{', shared' if m.share else ''}{', MADV_RANDOM' if m.random_advice else ''}"
    text += ", MADV_SEQUENTIAL" if m.sequential_advice else ""
    match s.kind:
        case SwapKind.GATED:
            rule = rule_of(s) or Rule()
            waits = _WAITS.get(rule.word, f"by the rule {rule.word}:{{n}}")
            waits = waits.format(n=rule.count, ms=s.delay_ms, **_endings(rule.count))
            device = f"a gated device: a read ends {waits} ({s.order})"
        case SwapKind.DELAY:
            device = f"a delay device: a read takes {s.delay_ms} ms"
        case _:
            device = f"{s.kind}"
    return f"{text}; the device under it is {device}; page_cluster {s.page_cluster}."


def _endings(count: int) -> dict[str, str]:
    """What one and many of something differ by."""
    one = count == 1
    return {"s": "" if one else "s", "es": "s" if one else "", "are": "is" if one else "are",
            "were": "was" if one else "were"}  # fmt: skip


def _pages(plan: Plan) -> Iterator[str]:
    for start, pages in groupby(plan.pages, key=lambda p: p.start):
        names = [p.name for p in pages]
        yield f"{names[0] if len(names) == 1 else f'{names[0]} to {names[-1]} ({len(names)} pages)'}: {start}."


def _programs(plan: Plan) -> Iterator[str]:
    for vcpu in range(plan.guest.vcpus):
        steps = list(_steps([i for i in plan.items if i.vcpu == vcpu]))
        if steps:
            more = f"; and {len(steps) - _MANY} more" if len(steps) > _MANY else ""
            yield f"vCPU {vcpu}: {'; '.join(steps[:_MANY])}{more}."


def _steps(items: Sequence[Item]) -> Iterator[str]:
    """Items in order; a run of touches that differ in nothing but their page is one step."""
    for _, same in groupby(items, key=_kind):
        run = list(same)
        first, last = run[0], run[-1]
        pause = f"after {first.pause_us / 1000:g} ms " if first.pause_us and first.op is not Op.PAUSE else ""
        what = _touch(first) if first.op is Op.TOUCH else _other(first)
        many = f" to {last.page}" if len(run) > 1 and first.op is Op.TOUCH else f", {len(run)} times"
        wait = " and wait for it" if first.wait else ""
        yield f"[{ranges(i.index for i in run)}] {pause}{what}{many if len(run) > 1 else ''}{wait}"


def _touch(item: Item) -> str:
    events = {By.INTERRUPT: "an interrupt", By.EXCEPTION: "an exception", By.TOKEN: "that token", By.NMI: "an NMI"}
    made = events.get(item.by)
    return touch_words(item) + (f" by the delivery of {made}" if made else "") + ("" if item.gif else ", as GIF=0")


def _kind(item: Item) -> tuple[object, ...]:
    return (item.op, item.access, item.cpl, item.interrupts, item.shadow, item.gif, item.tpr, item.in_service, item.by,
            item.wait, item.pause_us, item.msr,
            item.value if item.op is not Op.TOUCH else 0)  # fmt: skip


def _other(item: Item) -> str:
    match item.op:
        case Op.WRMSR:
            return f"wrmsr {item.msr:#x} = {item.value:#x}"
        case Op.PAUSE:
            return f"busy for {item.pause_us / 1000:g} ms"
        case Op.WAIT:
            return "wait for all that is outstanding"
        case Op.AFTER:
            return f"wait until another vCPU is past [{item.value}]"
        case Op.HOST:
            return f"ask the host for its stage {item.value}"
        case _:
            return f"{item.op} {item.value:#x}" if item.value else f"{item.op}"


def _host(plan: Plan) -> Iterator[str]:
    for n, actions in enumerate(plan.host_actions):
        yield f"Stage {n} of the host: {_actions(actions)}."
    for timed in plan.timed:
        yield f"{timed.at_ms} ms after the guest was let go the host does: {_actions(timed.actions)}."


def _actions(actions: Sequence[HostAction]) -> str:
    return ", ".join(f"{a.do} {a.arg}" if a.arg else f"{a.do}" for a in actions)
