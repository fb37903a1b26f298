# SPDX-License-Identifier: GPL-2.0-or-later
"""What `apf explain` prints: a walk as an indented call tree, a comparison, and both as JSON values."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Any

from harness.model.kernels import KernelModel
from harness.model.walk.access import Act, Story
from harness.model.walk.steps import Step, Thread
from harness.model.walk.walk_diff import Parting, deciding_steps, moved

_WHO = {Thread.V: "V, the vCPU thread", Thread.W: "W, the kworker"}


def as_json(kernel: KernelModel, story: Story) -> dict[str, Any]:
    """A story as JSON values; steps in order, each with its citation."""
    return {
        "kernel": kernel.name,
        "release": kernel.version,
        "outcome": story.outcome.value,
        "decided_by": [_step_json(s) for s in deciding_steps(story)],
        "acts": [_act_json(act) for act in story.acts],
        "page_after": asdict(story.page),
        "readahead_after": asdict(story.readahead),
    }


def _step_json(step: Step) -> dict[str, Any]:
    raw = asdict(step)
    return {key: raw[key] for key in ("function", "tested", "result", "why", "citation", "thread")} | {
        "depth": step.depth
    }


def _act_json(act: Act) -> dict[str, Any]:
    leg = act.end
    return {
        "title": act.title,
        "thread": act.thread.value,
        "end": leg.end.value if leg.end else None,
        "async": leg.is_async,
        "errno": leg.errno,
        "counters": asdict(act.counters),
        "reads": [asdict(r) for r in act.reads],
        "waits": [asdict(w) for w in act.waits],
        "steps": [_step_json(s) for s in act.steps],
    }


def walk_text(question: str, kernel: KernelModel, story: Story, *, width: int = 118) -> str:
    """The whole story for a terminal."""
    lines = [f"{question}", f"kernel: {kernel.name} ({kernel.version})"]
    for act in story.acts:
        lines += ["", f"{act.title} - {_WHO[act.thread]}", *_tree(act, width), *_sum(act)]
    lines += ["", f"outcome: {story.outcome.value.upper()}", *_decided(deciding_steps(story))]
    return "\n".join(lines)


def _decided(steps: tuple[Step, ...]) -> list[str]:
    lines = []
    for word, step in zip(["decided in", *["and in"] * len(steps)], steps, strict=False):
        lines += [f"  {word} {step.function}: {step.tested}: {step.result}", f"      {step.citation}"]
    return lines


def _tree(act: Act, width: int) -> list[str]:
    lines: list[str] = []
    open_calls: tuple[tuple[int, str], ...] = ()
    for step in act.steps:
        for depth, call in enumerate(step.calls):
            if depth >= len(open_calls) or open_calls[depth] != call:
                lines.append("  " * (depth + 1) + call[1] + "()")
        open_calls = step.calls
        pad = "  " * (step.depth + 2)
        lines += textwrap.wrap(f"{step.tested}: {step.result}; {step.why}".rstrip("; "), width,
                               initial_indent=pad + "- ", subsequent_indent=pad + "  ")  # fmt: skip
    return lines


def _sum(act: Act) -> list[str]:
    lines = [f"  = {act.end.end}, counters: {moved(act)}"]
    for read in act.reads:
        how = "synchronous" if read.synchronous else "asynchronous"
        lines.append(f"    read submitted by {read.thread}: {len(read.pages)} page(s), {how}"
                     + ("" if read.bio else ", no bio"))  # fmt: skip
    for wait in act.waits:
        lock = "held" if wait.mmap_lock_held else "dropped"
        lines.append(f"    waits for {wait.kind} in {wait.function} (state {wait.state}, mmap_lock {lock})")
    return lines


def parting_text(question: str, first: KernelModel, second: KernelModel, parting: Parting) -> str:
    """Where two kernels part, and what of it can be observed."""
    lines = [question, f"{first.name} against {second.name}", ""]
    if parting.difference:
        lines += ["first difference:", *_two(first, second, parting.difference)]
    if parting.ways and parting.ways != parting.difference:
        lines += ["ways part:", *_two(first, second, parting.ways)]
    if not parting.difference and not parting.ways:
        lines.append("V walks the same way in both")
    if parting.decided[0] != parting.decided[1]:
        for kernel, steps in zip((first, second), parting.decided, strict=True):
            lines += [kernel.name, *_decided(steps)]
        lines.append("")
    lines.append("what can be observed:" if parting.effects else "nothing that can be observed differs")
    for name, x, y in parting.effects:
        lines += [f"  {name}", f"    {first.name:14} {x}", f"    {second.name:14} {y}"]
    return "\n".join(lines)


def _two(first: KernelModel, second: KernelModel, steps: tuple[Step | None, Step | None]) -> list[str]:
    lines = []
    for kernel, step in zip((first, second), steps, strict=True):
        text = f"{step.function}: {step.tested}: {step.result}; {step.why}" if step else "(the walk has ended)"
        lines += textwrap.wrap(text, 118, initial_indent=f"  {kernel.name:14} ", subsequent_indent=" " * 19)
        if step:
            lines.append(" " * 17 + step.citation)
    return [*lines, ""]


def parting_json(first: KernelModel, second: KernelModel, parting: Parting) -> dict[str, Any]:
    """The comparison as JSON values."""
    pair = parting.difference
    ways = parting.ways
    return {
        "kernels": [first.name, second.name],
        "first_difference": [_step_json(s) for s in pair] if pair else None,
        "ways_part": [_step_json(s) if s else None for s in ways] if ways else None,
        "decided_by": {
            k.name: [_step_json(s) for s in d] for k, d in zip((first, second), parting.decided, strict=True)
        },
        "effects": [{"what": n, first.name: x, second.name: y} for n, x, y in parting.effects],
    }
