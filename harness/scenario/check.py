# SPDX-License-Identifier: GPL-2.0-or-later
"""Contradictions in a scenario that its types allow: each as one line with the key path."""

from __future__ import annotations

from collections.abc import Iterator

from harness.contract.gate import Rule, parse_rule
from harness.contract.plan import POOL_GPA, Backing, GuestKind, PageStart, Swap, SwapKind
from harness.contract.words import HostWord, ReadOrder, Release
from harness.errors import ScenarioError, UsageError
from harness.scenario.pages import lay_out, select
from harness.scenario.schema import PageSet, Scenario, Step

_SWAP_STATES = (PageStart.SWAPPED, PageStart.ZERO_SWAPPED, PageStart.SWAPCACHE)
_MSRS = ("EN", "INT", "ACK")
_WORKLOADS = ("boot", "touch")


def check(s: Scenario) -> Iterator[str]:
    """Problems as "$.key: text"; nothing when the scenario makes sense."""
    if not s.id or any(c.isspace() for c in s.id):
        yield f"$.id: {s.id!r} must be a word without spaces"
    yield from _machine(s)
    yield from _sets(s)
    if any(p.groups < 1 or p.run < 1 or p.stride < p.run for p in s.pages.values()):
        return
    placed = lay_out(s.pages)
    top = max((gpa for gpas in placed.values() for gpa in gpas), default=POOL_GPA)
    if top + 4096 > (s.guest.memory_mib - 1) << 20:
        yield f"$.guest.memory_mib: the pages reach up to {top / (1 << 20):.1f} MiB and 1 MiB must stay free above"
    owner: dict[int, str] = {}
    for name, gpas in placed.items():
        for gpa in gpas:
            if owner.setdefault(gpa, name) != name:
                yield f"$.pages.{name}: overlaps {owner[gpa]}"
                break
    for i, step in enumerate(s.steps):
        yield from (f"$.steps[{i}]{p}" for p in _step(s, step, placed))
    for i, timed in enumerate(s.timed):
        if timed.at_ms < 0:
            yield f"$.timed[{i}].at_ms: cannot be negative"


def _machine(s: Scenario) -> Iterator[str]:
    g = s.guest
    if g.machine not in ("microvm", "q35"):
        yield f"$.guest.machine: {g.machine!r} is not microvm or q35"
    if not 1 <= g.vcpus <= 16:
        yield f"$.guest.vcpus: {g.vcpus} is not between 1 and 16"
    if not 32 <= g.memory_mib <= 1024:
        yield f"$.guest.memory_mib: {g.memory_mib} is not between 32 and 1024"
    if g.irqchip not in ("on", "split", "off"):
        yield f"$.guest.irqchip: {g.irqchip!r} is not on, split or off"
    if g.idle not in ("hlt", "spin"):
        yield f"$.guest.idle: {g.idle!r} is not hlt or spin"
    if not 0 <= s.swap.page_cluster <= 6:
        yield f"$.swap.page_cluster: {s.swap.page_cluster} is not between 0 and 6"
    yield from _gate(s)
    if s.swap.delay_ms < 0:
        yield "$.swap.delay_ms: cannot be negative"
    if s.swap.kind is SwapKind.ZRAM and (s.swap.rotational or s.memory.backing is Backing.FILE):
        yield "$.swap.kind: zram is never rotational and cannot carry the file system of file-backed memory"
    if s.memory.random_advice and s.memory.backing is Backing.ANON:
        yield "$.memory.random_advice: read-ahead advice has no meaning for anonymous memory"
    if not 0 <= s.apf.vector <= 0xFF:
        yield f"$.apf.vector: {s.apf.vector} is not a vector"
    if s.deadline_s < 1 or s.repeats < 1:
        yield "$.deadline_s, $.repeats: must be at least 1"
    for key in s.kernel_params:
        if key.count(".") != 1:
            yield f"$.kernel_params.{key!r}: expected module.parameter"
    if g.kind is GuestKind.LINUX:
        if g.workload not in _WORKLOADS:
            yield f"$.guest.workload: {g.workload!r} is not one of {', '.join(_WORKLOADS)}"
        if s.pages or s.steps:
            yield "$.pages, $.steps: a linux guest runs a workload; pages and steps are for the probe guest"
        if g.workload == "touch" and g.workload_pages < 1:
            yield "$.guest.workload_pages: the touch workload needs at least one page"
    else:
        if g.workload or g.workload_pages or g.cmdline:
            yield "$.guest.workload, $.guest.cmdline: only for linux guests; the probe guest runs steps"
        if not s.steps:
            yield "$.steps: a probe guest with nothing to do proves nothing"


def _gate(s: Scenario) -> Iterator[str]:
    """Keys and words of a gated device."""
    try:
        rule = parse_rule(s.swap.release)
    except UsageError as exc:
        yield f"$.swap.release: {exc.message}"
        return
    words = {h.do for steps in (*(t.host for t in s.steps), *(t.host for t in s.timed)) for h in steps}
    if s.swap.kind is not SwapKind.GATED:
        if rule != Rule() or s.swap.order is not ReadOrder.TARGET_LAST or s.swap.error:
            yield "$.swap: release, order and error are for kind = gated"
        if HostWord.RELEASE in words:
            yield "$.steps.host: release is for swap.kind = gated"
        return
    if HostWord.DELAY in words:
        yield "$.steps.host: delay is for swap.kind = dm-delay"
    if rule.word is Release.STEP and HostWord.RELEASE not in words:
        yield '$.swap.release: with step, reads end by the host word "release", and there is none'
    if rule.word is not Release.AFTER and s.swap.delay_ms != Swap().delay_ms:
        yield "$.swap.delay_ms: reads of a gated device take no time, but for release = after"
    if s.swap.error and s.memory.backing is Backing.FILE:
        yield "$.swap.error: one read of a file brings many pages, and all would fail; name pages on swap"
    try:
        select(lay_out(s.pages), s.swap.error)
    except ScenarioError as exc:
        yield f"$.swap.error: {exc.message}"


def _sets(s: Scenario) -> Iterator[str]:
    for name, p in s.pages.items():
        yield from (f"$.pages.{name}{text}" for text in _set(s, p))


def _set(s: Scenario, p: PageSet) -> Iterator[str]:
    if p.groups < 1 or p.run < 1:
        yield ": groups and run must be at least 1"
    if p.stride < p.run:
        yield f".stride: {p.stride} is less than run = {p.run}: groups would overlap"
    if p.start in _SWAP_STATES:
        if s.swap.kind is SwapKind.NONE:
            yield f".start: {p.start} needs a swap device"
        if s.memory.backing is Backing.FILE:
            yield f".start: pages of a file are never {p.start}; use dropped"
    if p.start is PageStart.SWAPCACHE and s.swap.kind is SwapKind.ZRAM:
        yield ".start: a page written to zram leaves the swap cache at once"
    if p.start is PageStart.DROPPED and s.memory.backing is not Backing.FILE:
        yield f".start: dropped is for memory.backing = file, not {s.memory.backing}"
    if p.start is PageStart.DROPPED and s.swap.kind is SwapKind.NONE:
        yield ".start: the file system of dropped pages lives on the swap section's device"


def _step(s: Scenario, t: Step, placed: dict[str, tuple[int, ...]]) -> Iterator[str]:
    actions = {
        "touch": bool(t.touch),
        "wrmsr": bool(t.wrmsr),
        "lapic": bool(t.lapic),
        "paging": bool(t.paging),
        "timer_us": t.timer_us >= 0,
        "clear_token": t.clear_token,
        "pause": t.pause,
        "wait_all": t.wait_all,
        "host": bool(t.host),
    }
    named = [k for k, v in actions.items() if v]
    if len(named) != 1:
        yield f": exactly one of {', '.join(actions)} is needed, found {' and '.join(named) or 'none'}"
        return
    if not 0 <= t.vcpu < s.guest.vcpus:
        yield f".vcpu: {t.vcpu}, but the guest has {s.guest.vcpus}"
    if t.cpl not in (0, 3):
        yield f".cpl: {t.cpl} is not 0 or 3"
    if t.then not in ("go-on", "wait"):
        yield f".then: {t.then!r} is not go-on or wait"
    if t.shadow and not t.interrupts:
        yield ".shadow: an interrupt shadow is made by STI, so interrupts must be true"
    if t.shadow and t.cpl == 3:
        yield ".shadow: the STI is executed at CPL 0: set cpl = 0"
    if t.no_paging and t.cpl == 3:
        yield ".no_paging: code without paging runs at CPL 0: set cpl = 0"
    if t.pause_us < 0:
        yield ".pause_us: cannot be negative"
    if t.lapic and t.lapic not in ("on", "off"):
        yield f".lapic: {t.lapic!r} is not on or off"
    if t.paging and t.paging not in ("flip", "off"):
        yield f".paging: {t.paging!r} is not flip or off"
    if t.wrmsr and t.wrmsr not in _MSRS and not _is_number(t.wrmsr):
        yield f".wrmsr: {t.wrmsr!r} is not EN, INT, ACK or a number like 0x4b564d02"
    if isinstance(t.value, str) and not _is_number(t.value.removeprefix("own|")):
        yield f'.value: {t.value!r} is not a number or "own|flags"'
    if t.touch:
        try:
            select(placed, t.touch)
        except ScenarioError as exc:
            yield f".touch: {exc.message}"
    for h in t.host:
        if h.page:
            try:
                select(placed, h.page)
            except ScenarioError as exc:
                yield f".host: {exc.message}"


def _is_number(text: str) -> bool:
    try:
        int(text, 0)
    except ValueError:
        return False
    return True
