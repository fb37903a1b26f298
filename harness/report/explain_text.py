# SPDX-License-Identifier: GPL-2.0-or-later
"""What `apf explain` prints: a walk as an indented call tree, a comparison, and both as JSON values."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Any

from harness.model.kernels import KernelModel
from harness.model.walk.access import AccessWalk, Phase
from harness.model.walk.steps import Thread, WalkStep
from harness.model.walk.walk_diff import WalkDiff, decided_by, moved

_WHO = {Thread.V: "V, the vCPU thread", Thread.W: "W, the kworker"}


def as_json(kernel: KernelModel, walk: AccessWalk) -> dict[str, Any]:
    """A walk as JSON values; steps in order, each with its citation."""
    return {
        "kernel": kernel.name,
        "release": kernel.version,
        "outcome": walk.outcome.value,
        "decided_by": [_step_json(s) for s in decided_by(walk)],
        "phases": [_phase_json(phase) for phase in walk.phases],
        "page_after": asdict(walk.page),
        "readahead_after": asdict(walk.readahead),
    }


def _step_json(step: WalkStep) -> dict[str, Any]:
    raw = step._asdict()
    return {key: raw[key] for key in ("function", "tested", "result", "why", "citation", "thread")} | {
        "depth": step.depth
    }


def _phase_json(phase: Phase) -> dict[str, Any]:
    leg = phase.end
    return {
        "title": phase.title,
        "thread": phase.thread.value,
        "end": leg.end.value if leg.end else None,
        "async": leg.is_async,
        "errno": leg.errno,
        "counters": asdict(phase.counters),
        "reads": [asdict(r) for r in phase.reads],
        "waits": [asdict(w) for w in phase.waits],
        "steps": [_step_json(s) for s in phase.steps],
    }


def walk_text(question: str, kernel: KernelModel, walk: AccessWalk, *, width: int = 118) -> str:
    """The whole walk for a terminal."""
    lines = [f"{question}", f"kernel: {kernel.name} ({kernel.version})"]
    for phase in walk.phases:
        lines += ["", f"{phase.title} - {_WHO[phase.thread]}", *_tree(phase, width), *_sum(phase)]
    lines += ["", f"outcome: {walk.outcome.value.upper()}", *_decided(decided_by(walk))]
    return "\n".join(lines)


def _decided(steps: tuple[WalkStep, ...]) -> list[str]:
    lines = []
    for word, step in zip(["decided in", *["and in"] * len(steps)], steps, strict=False):
        lines += [f"  {word} {step.function}: {step.tested}: {step.result}", f"      {step.citation}"]
    return lines


def _tree(phase: Phase, width: int) -> list[str]:
    lines: list[str] = []
    open_calls: tuple[tuple[int, str], ...] = ()
    for step in phase.steps:
        for depth, call in enumerate(step.calls):
            if depth >= len(open_calls) or open_calls[depth] != call:
                lines.append("  " * (depth + 1) + call[1] + "()")
        open_calls = step.calls
        pad = "  " * (step.depth + 2)
        lines += textwrap.wrap(f"{step.tested}: {step.result}; {step.why}".rstrip("; "), width,
                               initial_indent=pad + "- ", subsequent_indent=pad + "  ")  # fmt: skip
    return lines


def _sum(phase: Phase) -> list[str]:
    lines = [f"  = {phase.end.end}, counters: {moved(phase)}"]
    for read in phase.reads:
        how = "synchronous" if read.synchronous else "asynchronous"
        lines.append(f"    read submitted by {read.thread}: {len(read.pages)} page(s), {how}"
                     + ("" if read.bio else ", no bio"))  # fmt: skip
    for wait in phase.waits:
        lock = "held" if wait.mmap_lock_held else "dropped"
        lines.append(f"    waits for {wait.kind} in {wait.function} (state {wait.state}, mmap_lock {lock})")
    return lines


def diff_text(question: str, first: KernelModel, second: KernelModel, diff: WalkDiff) -> str:
    """Where two kernels part, and what of it can be observed."""
    lines = [question, f"{first.name} against {second.name}", ""]
    if diff.difference:
        lines += ["first difference:", *_two(first, second, diff.difference)]
    if diff.ways and diff.ways != diff.difference:
        lines += ["ways part:", *_two(first, second, diff.ways)]
    if not diff.difference and not diff.ways:
        lines.append("V walks the same way in both")
    if diff.decided[0] != diff.decided[1]:
        for kernel, steps in zip((first, second), diff.decided, strict=True):
            lines += [kernel.name, *_decided(steps)]
        lines.append("")
    lines.append("what can be observed:" if diff.effects else "nothing that can be observed differs")
    for name, x, y in diff.effects:
        lines += [f"  {name}", f"    {first.name:14} {x}", f"    {second.name:14} {y}"]
    return "\n".join(lines)


def _two(first: KernelModel, second: KernelModel, steps: tuple[WalkStep | None, WalkStep | None]) -> list[str]:
    lines = []
    for kernel, step in zip((first, second), steps, strict=True):
        text = f"{step.function}: {step.tested}: {step.result}; {step.why}" if step else "(the walk has ended)"
        lines += textwrap.wrap(text, 118, initial_indent=f"  {kernel.name:14} ", subsequent_indent=" " * 19)
        if step:
            lines.append(" " * 17 + step.citation)
    return [*lines, ""]


def diff_json(first: KernelModel, second: KernelModel, diff: WalkDiff) -> dict[str, Any]:
    """The comparison as JSON values."""
    pair = diff.difference
    ways = diff.ways
    return {
        "kernels": [first.name, second.name],
        "first_difference": [_step_json(s) for s in pair] if pair else None,
        "ways_part": [_step_json(s) if s else None for s in ways] if ways else None,
        "decided_by": {k.name: [_step_json(s) for s in d] for k, d in zip((first, second), diff.decided, strict=True)},
        "effects": [{"what": n, first.name: x, second.name: y} for n, x, y in diff.effects],
    }
