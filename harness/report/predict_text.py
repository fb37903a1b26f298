# SPDX-License-Identifier: GPL-2.0-or-later
"""A prediction as text for a terminal, and as JSON values."""

from __future__ import annotations

import textwrap
from dataclasses import asdict
from typing import Any

from harness.contract.words import GuestKind
from harness.errors import ModelError
from harness.model.events import Kind
from harness.model.kernels import KernelModel
from harness.model.known_faults import KNOWN_FAULTS
from harness.model.simulation.situation import ItemPrediction, Prediction
from harness.report.ranges import ranges
from harness.scenario.schema import Scenario

_READERS = {"V": ", read by the vCPU thread", "W": ", read by a kworker"}
_MANY = 12
"""So many groups of items are shown in order; of more, like ones are put together."""
_INDICES = 14


def predict_text(
    scenario: Scenario, kernel: KernelModel, answer: Prediction, offered: tuple[str, ...], *, width: int = 110,
    events: bool,
) -> str:  # fmt: skip
    """The prediction for a terminal.  ``offered``: features of async page faults that CPUID shows to the guest."""
    lines = [f"{scenario.id}  {scenario.title}", f"kernel {kernel.name} ({kernel.variant})"]
    if scenario.guest.kind is not GuestKind.HOST_PROGRAM:
        lines.append(f"the guest is offered (CPUID): {', '.join(offered) or 'no async page faults'}")
    lines.append("")
    lines += _items(answer, width)
    lines += _totals(answer, width)
    if not answer.ends:
        lines.append("The guest's program does not come to its end.")
    if answer.orders:
        lines += textwrap.wrap(f"orders: {answer.orders}", width)
    for name in answer.known_faults:
        lines += textwrap.wrap(f"finding {name}: {KNOWN_FAULTS[name].title}", width)
    for note in answer.notes:
        lines += textwrap.wrap(f"note: {note}", width)
    if events:
        lines += ["", "events"] + [_event(e) for e in answer.events]
    return "\n".join(lines)


def _items(answer: Prediction, width: int) -> list[str]:
    """A line for each group of items that differ only in page and token; far-apart ones share a line if many."""
    runs: list[list[ItemPrediction]] = []
    for item in answer.items:
        if runs and _key(runs[-1][0]) == _key(item):
            runs[-1].append(item)
        else:
            runs.append([item])
    if len(runs) > _MANY:
        groups: dict[tuple[object, ...], list[ItemPrediction]] = {}
        for item in answer.items:
            groups.setdefault(_key(item), []).append(item)
        runs = list(groups.values())
    lines: list[str] = []
    for run in runs:
        lines += _group(run, width, answer.ends)
    return lines


def _group(items: list[ItemPrediction], width: int, program_ends: bool) -> list[str]:
    """An item without an end in a program that has one was cut off by a reset of the machine."""
    first = items[0]
    outcome = " or ".join((first.outcome, *first.also)) if first.page else ("#GP" if first.gp else "-")
    more = f", {first.repeats} repeated" if first.repeats.high else ""
    end = "" if first.ends else ", cut off by the reset" if program_ends else ", NEVER ENDS"
    pages = f"{first.page} .. {items[-1].page}" if len(items) > 1 and first.page else first.page
    indices = ranges([i.index for i in items], ",")
    times = f" ({len(items)} items)" if len(items) > 1 else ""
    text = f"{outcome}{more}{_READERS.get(first.issuer, '')}{end}{times}"
    lines = [f"  {indices:>7}  {pages:<18} {text}"] if len(indices) < _INDICES else [
        *textwrap.wrap(f"items {indices}", width, initial_indent="  ", subsequent_indent="    "), f"{'':11}{text}",
    ]  # fmt: skip
    if first.why:
        rule = f"{first.rule}: " if first.rule else ""
        lines += textwrap.wrap(rule + first.why, width, initial_indent=" " * 11, subsequent_indent=" " * 11)
    return lines


def _key(i: ItemPrediction) -> tuple[object, ...]:
    return (i.vcpu, i.outcome, i.also, i.repeats, i.issuer, i.ends, i.gp, i.rule, i.why, bool(i.page))


def _totals(answer: Prediction, width: int) -> list[str]:
    shown = {k: v for k, v in answer.totals.items() if v.high}
    lines = ["", "totals (not listed: 0)"]
    lines += textwrap.wrap("  ".join(f"{k}={v}" for k, v in shown.items()), width - 2,
                           initial_indent="  ", subsequent_indent="  ", break_long_words=False)  # fmt: skip
    reasons: dict[str, list[str]] = {}
    for name, count in shown.items():
        if count.reason:
            reasons.setdefault(count.reason.partition(" with ")[2] or count.reason, []).append(name)
    for reason, names in reasons.items():
        lines += textwrap.wrap(f"{', '.join(names)}: {reason}", width, initial_indent="  ", subsequent_indent="    ")
    return lines


def _event(event: Any) -> str:
    who = f"vCPU {event.vcpu}" if event.vcpu >= 0 else "kworker"
    token = f" token {event.token:#x}" if event.token else ""
    gpa = f" gpa {event.gpa:#x}" if event.gpa else ""
    return f"  {event.t_ns / 1e6:10.3f} ms  {who:<8} {Kind(event.kind).name}{token}{gpa}"


def predict_json(scenario: Scenario, answer: Prediction, offered: tuple[str, ...]) -> dict[str, Any]:
    """The prediction as JSON values."""
    try:
        raw = asdict(answer)
    except TypeError as exc:  # a value that is no plain data would be our own mistake
        raise ModelError(f"{scenario.id}: the prediction is not plain data: {exc}") from exc
    raw["scenario"], raw["offered"] = scenario.id, list(offered)
    raw["events"] = [{"t_ns": e.t_ns, "kind": Kind(e.kind).name, "vcpu": e.vcpu, "token": e.token, "gpa": e.gpa,
                      "value": e.value} for e in answer.events]  # fmt: skip
    return raw
