# SPDX-License-Identifier: GPL-2.0-or-later
"""``apf predict``: what a scenario must lead to on a kernel, and why, before anything is run."""

from __future__ import annotations

import argparse
import json
import shutil
import textwrap
from dataclasses import asdict
from pathlib import Path
from typing import Any

from harness.errors import ModelError
from harness.model.events import Kind
from harness.model.kernels import KernelModel
from harness.model.simulation.situation import ItemPrediction, Prediction
from harness.prediction import predict
from harness.run.model_named import model_named
from harness.run.scenario_sources import default_scenarios, read_scenarios
from harness.run.selection import select
from harness.scenario.build import build_plan
from harness.scenario.schema import Scenario

_READERS = {"V": ", read by the vCPU thread", "W": ", read by a kworker"}
_MANY = 12
"""So many groups of items are shown in order; of more, like ones are put together."""
_INDICES = 14
_NONCE = 0x5EED_0000_0000_0001
"""Only the value that a read returns depends on it."""


def add(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Register ``apf predict``."""
    p = subparsers.add_parser(
        "predict",
        help="say what a scenario must lead to on a kernel, and why",
        description="Ask the model: each item's outcome with the rule that decides it, and all counts.",
    )
    p.add_argument("scenario", nargs="+", help='id, glob ("S2*"), tag ("tag:smoke") or a scenario file')
    p.add_argument("--kernel", default="nowait-6.1", metavar="KERNEL",
                   help="nowait-6.1, noio-6.1, ...; VARIANT:RELEASE (nowait:6.1.158); or as for `apf run`")  # fmt: skip
    p.add_argument("--scenarios", action="append", default=[], type=Path, metavar="PATH",
                   help="scenario file or folder (default: tests/scenarios)")  # fmt: skip
    p.add_argument("--events", action="store_true", help="also print the predicted events in order")
    p.add_argument("--json", action="store_true", help="as JSON")
    p.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Predict and print.  :raise UsageError: no such scenario or kernel."""
    kernel = model_named(args.kernel)
    answers = [(s, predict(build_plan(s, _NONCE), kernel)) for s in _scenarios(args)]
    if args.json:
        print(json.dumps([_as_json(s, a) for s, a in answers], indent=1))
        return 0
    width = min(shutil.get_terminal_size((110, 24)).columns, 160)
    print("\n\n".join(render(s, kernel, a, width=width, events=args.events) for s, a in answers))
    return 0


def _scenarios(args: argparse.Namespace) -> tuple[Scenario, ...]:
    files = [Path(name) for name in args.scenario if name.endswith(".toml")]
    names = [name for name in args.scenario if not name.endswith(".toml")]
    found = read_scenarios(files) if files else ()
    if names:
        found += select(read_scenarios(args.scenarios or [default_scenarios()]), names)
    return found


def render(scenario: Scenario, kernel: KernelModel, answer: Prediction, *, width: int = 110, events: bool) -> str:
    """The prediction for a terminal."""
    lines = [f"{scenario.id}  {scenario.title}", f"kernel {kernel.name} ({kernel.variant})", ""]
    lines += _items(answer, width)
    lines += _totals(answer, width)
    if not answer.ends:
        lines.append("The guest's program does not come to its end.")
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
        lines += _group(run, width)
    return lines


def _group(items: list[ItemPrediction], width: int) -> list[str]:
    first = items[0]
    outcome = " or ".join((first.outcome, *first.also)) if first.page else ("#GP" if first.gp else "-")
    more = f", {first.repeats} repeated" if first.repeats.high else ""
    end = "" if first.ends else ", NEVER ENDS"
    pages = f"{first.page} .. {items[-1].page}" if len(items) > 1 and first.page else first.page
    indices = _ranges([i.index for i in items])
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


def _ranges(numbers: list[int]) -> str:
    """[0, 1, 2, 5] -> "0-2,5"."""
    found: list[list[int]] = []
    for n in numbers:
        if found and found[-1][1] == n - 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return ",".join(str(a) if a == b else f"{a}-{b}" for a, b in found)


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


def _as_json(scenario: Scenario, answer: Prediction) -> dict[str, Any]:
    try:
        raw = asdict(answer)
    except TypeError as exc:  # a value that is no plain data would be our own mistake
        raise ModelError(f"{scenario.id}: the prediction is not plain data: {exc}") from exc
    raw["scenario"] = scenario.id
    raw["events"] = [{"t_ns": e.t_ns, "kind": Kind(e.kind).name, "vcpu": e.vcpu, "token": e.token, "gpa": e.gpa,
                      "value": e.value} for e in answer.events]  # fmt: skip
    return raw
