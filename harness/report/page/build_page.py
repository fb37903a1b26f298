# SPDX-License-Identifier: GPL-2.0-or-later
"""A run as one HTML file: no network, nothing beside it, readable without a script."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import groupby
from typing import Any

from markupsafe import Markup

from harness.judge.verdict_types import (
    Finding,
    ItemRow,
    TimelineRow,
    TotalRow,
    outcome_words,
    thread_words,
    touch_words,
)
from harness.report.compare_text import difference_text
from harness.report.explain_verdict import explain_verdict
from harness.report.page.page_data import PageData, PastVerdict, VerdictFolder
from harness.report.page.performance import performance_rows, significance
from harness.report.page.template import render, what_fits
from harness.report.plan_words import plan_words
from harness.report.ranges import ranges
from harness.report.verdict_text import reason_text
from harness.results import Key, Row, RunResult
from harness.status import Status

_COLUMNS = ("tokens", "halts", "sync", "mapped")
_SIDE_BY_SIDE = 4
"""Kernels up to this many stand in columns; of more each verdict is a row of its own."""
_MANY = 40
_CONSOLE_LINES, _CONSOLE_CHARS = 12, 1500


def build_page(data: PageData) -> str:
    """The page's text.

    Without the largest of the green timelines, if all together are too large; those say where they are.
    """
    green = {row.key for row in data.result.rows if data.result.is_green(row)} & data.folders.keys()
    sizes = {key: len(data.folders[key].timeline.encode()) for key in green}
    rest = len(_page(_without_drawings(data, green)).encode())
    return _page(_without_drawings(data, green - what_fits(sizes, rest)))


def _without_drawings(data: PageData, keys: Set[Key]) -> PageData:
    folders = dict(data.folders)
    for key in keys:
        if folders[key].timeline:
            note = f"the timeline is not drawn here, so that the page stays small: {key.folder}/timeline.svg"
            notes = (*folders[key].timeline_notes, note)
            folders[key] = replace(folders[key], timeline="", timeline_notes=notes)
    return replace(data, folders=folders)


def _page(data: PageData) -> str:
    result = data.result
    kernels = list(dict.fromkeys(key.kernel for key in result.planned))
    together = len(kernels) <= _SIDE_BY_SIDE
    return render(
        "page",
        f"apf run {result.run}",
        {
            "headline": _headline(result),
            "exit_code": result.exit_code,
            "seconds": f"{result.seconds:.0f}",
            "command": result.command,
            "facts": sorted(result.facts.items()),
            "compared_with": _compared_with(data.past),
            "changes": list(_changes(data)),
            "groups": kernels if together else ["verdict"],
            "table": list(_table(data, kernels if together else [])),
            "performance": performance_rows(_samples(data)),
            "significance": significance(_samples(data)),
            "histogram_range": "10 \N{MICRO SIGN}s to 1 s",
            "sections": list(_sections(data, together)),
        },
    )


def css_class(status: Status | None) -> str:
    """The class of a verdict's word."""
    return status.value if status is not None else "missing"


def word_of(row: Row | None) -> str:
    """A verdict as the page calls it."""
    return row.verdict.word if row is not None else "missing"


def _headline(result: RunResult) -> str:
    counted = {s: sum(row.status is s for row in result.rows) for s in Status}
    text = ", ".join(f"{n} {s.value}{_accepted(result, s)}" for s, n in counted.items() if n) or "no verdict"
    if result.missing:
        text += f", {len(result.missing)} of {len(result.planned)} without a verdict"
    if result.refused:
        text += f", {len(result.refused)} scenario file{'s' if len(result.refused) > 1 else ''} refused"
    return text + (", interrupted" if result.interrupted else "")


def _accepted(result: RunResult, status: Status) -> str:
    """Why what is not a PASS does not make the run red, where that is so."""
    mine = [row for row in result.rows if row.status is status]
    if status is Status.PASS or not all(map(result.is_green, mine)):
        return ""
    return " (accepted)" if status is Status.FINDING else " (allowed)"


def _anchor(key: Key) -> str:
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in f"{key.scenario}.{key.repeat}")


def _name(key: Key) -> str:
    return key.scenario if key.repeat == 1 else f"{key.scenario} #{key.repeat}"


def _compared_with(past: Mapping[Key, PastVerdict]) -> str:
    runs = sorted({p.run for p in past.values()})
    if not runs:
        return ""
    return f"run {runs[0]}" if len(runs) == 1 else f"runs {runs[0]} to {runs[-1]}, each verdict against its last"


def _changes(data: PageData) -> Iterator[dict[str, str]]:
    for key in data.result.planned:
        past, row = data.past.get(key), data.result.row(key)
        if past is not None and row is not None and past.word != word_of(row):
            yield {
                "key": str(key), "anchor": _anchor(key), "run": past.run, "was": past.word, "now": word_of(row),
                "was_class": past.word.split()[0], "now_class": css_class(row.status),
            }  # fmt: skip


def _samples(data: PageData) -> dict[str, list[Any]]:
    """By kernel, the measured times of its verdicts."""
    found: dict[str, list[Any]] = {}
    for key in data.result.planned:
        folder = data.folders.get(key)
        if folder is not None and folder.latencies:
            found.setdefault(key.kernel, []).append(folder.latencies)
    return found if len(found) <= _SIDE_BY_SIDE else {}


def _table(data: PageData, kernels: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Rows of the first table; with kernels in columns a row for each scenario and repeat."""
    result, by_key = data.result, {row.key: row for row in data.result.rows}
    lines: dict[tuple[object, ...], list[Key | None]] = {}
    for key in result.planned:
        if kernels:
            cells = lines.setdefault((key.scenario, key.repeat), [None] * len(kernels))
            cells[kernels.index(key.kernel)] = key
        else:
            lines[(key,)] = [key]
    for keys in lines.values():
        first = next(key for key in keys if key is not None)
        rows = [by_key.get(key) if key is not None else None for key in keys]
        yield {
            "name": _name(first) if kernels else str(first),
            "anchor": _anchor(first),
            "title": next((row.title for row in rows if row is not None and row.title), ""),
            "green": all(k is None or (r is not None and result.is_green(r)) for k, r in zip(keys, rows, strict=True)),
            "cells": [_cell(data, key, row) for key, row in zip(keys, rows, strict=True)],
        }


def _cell(data: PageData, key: Key | None, row: Row | None) -> dict[str, Any]:
    if key is None:
        return {"css": "dim", "word": "-", "changed": False, "numbers": ["-"] * (len(_COLUMNS) + 1)}
    past = data.past.get(key)
    numbers = [_number(row, name) for name in _COLUMNS] + [f"{row.seconds:.1f}" if row is not None else "-"]
    return {
        "css": css_class(row.status if row is not None else None),
        "word": word_of(row),
        "changed": past is not None and row is not None and past.word != word_of(row),
        "numbers": numbers,
    }


def _number(row: Row | None, name: str) -> str:
    cell = next((c for c in row.verdict.columns if c.name == name), None) if row is not None else None
    return "-" if cell is None else _seen(cell)


def _seen(cell: TotalRow) -> str:
    seen, predicted = "?" if cell.seen is None else str(cell.seen), str(cell.predicted)
    return seen if seen == predicted else f"{seen}/{predicted}"


def _sections(data: PageData, together: bool) -> Iterator[dict[str, Any]]:
    """One for each scenario and repeat, with its kernels one under the other."""
    by_key = {row.key: row for row in data.result.rows}
    compared = {c.scenario: c for c in data.comparisons}
    groups: dict[tuple[str, int], list[Key]] = {}
    for key in data.result.planned:
        groups.setdefault((key.scenario, key.repeat), []).append(key)
    for keys in groups.values():
        rows = [by_key.get(key) for key in keys]
        folders = [data.folders.get(key, VerdictFolder()) for key in keys]
        plan = next((f.plan for f in folders if f.plan is not None), None)
        comparison = compared.get(keys[0].scenario) if keys[0].repeat == 1 else None
        yield {
            "anchor": _anchor(keys[0]),
            "name": _name(keys[0]),
            "title": next((row.title for row in rows if row is not None and row.title), ""),
            "open": not all(row is not None and data.result.is_green(row) for row in rows),
            "plan": plan_words(plan) if plan is not None else [],
            "compared": f"{keys[0].kernel} (A) against {keys[-1].kernel} (B)",
            "differences": [difference_text(d) for d in comparison.differences] if comparison is not None else [],
            "sides": [_side(data, *one) for one in zip(keys, rows, folders, strict=True)],
        }


def _side(data: PageData, key: Key, row: Row | None, folder: VerdictFolder) -> dict[str, Any]:
    past = data.past.get(key)
    changed = past is not None and row is not None and past.word != word_of(row)
    side: dict[str, Any] = {
        "kernel": key.kernel,
        "css": css_class(row.status if row is not None else None),
        "word": word_of(row),
        "change": f"was {past.word} in {past.run}" if past is not None and changed else "",
        "svg": Markup(folder.timeline),
        "notes": [*folder.timeline_notes],
        "repeat": folder.repeat,
        "folder": key.folder,
        "explained": "", "touches": [], "totals": [], "findings": [], "trace": "", "rules": [], "rules_head": "",
        "consoles": [],
    }  # fmt: skip
    if row is None:
        return side | {"explained": "no verdict: the run ended before"}
    verdict = row.verdict
    green = data.result.is_green(row)
    rules = [f"worth a look: {f.rule}: {f.message}" for f in verdict.hints]
    rules += [f"could not be checked: {u.rule}: {u.why}" for u in verdict.unchecked]
    rules += [f"note of the model: {note}" for note in verdict.notes]
    passed = green and verdict.status is Status.PASS
    explained = reason_text(verdict).splitlines() if passed else explain_verdict(verdict, folder.commits)
    log = {"the host, at the verdict": verdict.log} if verdict.log else {}
    return side | {
        "explained": "\n".join(explained),
        "touches": list(_items(verdict.items)),
        "totals": [{"ok": t.ok, "text": f"{t.name}={_seen(t)}"} for t in verdict.totals if _told(t)],
        "findings": [_finding(f) for f in verdict.findings[:_MANY]],
        "trace": "\n".join(_event(e) for e in verdict.timeline),
        "rules": rules,
        "rules_head": f"{len(verdict.hints)} hints, {len(verdict.unchecked)} rules that could not be checked, "
        f"{len(verdict.notes)} notes",
        "consoles": [
            {"name": name, "text": _tail(text)} for name, text in {**log, **folder.consoles}.items()
            if text.strip() and not (green and name != "guest console")
        ],
    }  # fmt: skip


def _told(total: TotalRow) -> bool:
    """Zero as predicted, or never looked at, is no news."""
    return not total.ok or (total.seen is not None and (total.seen > 0 or total.predicted.high > 0))


def _finding(f: Finding) -> str:
    where = f" item {f.item}" if f.item >= 0 else ""
    line = f" (trace/events.txt:{f.line})" if f.line else ""
    return f"{f.rule}{where}{line}: {f.message}"


def _event(e: TimelineRow) -> str:
    who = thread_words(e.vcpu, e.worker, e.tid)
    return f"{'>' if e.marked else ' '} {e.t_ns / 1e9:14.6f} {who:<10} {e.text}"


def _items(rows: Sequence[ItemRow]) -> Iterator[dict[str, Any]]:
    """A row for each run of items that differ in nothing but their page."""

    def kind(row: ItemRow) -> tuple[object, ...]:
        return (row.access, row.cpl, row.interrupts, row.shadow, row.predicted, row.repeats, row.seen, row.reader,
                row.ok, row.why if not row.ok else "")  # fmt: skip

    for _, same in groupby(rows, key=kind):
        run = list(same)
        first, last = run[0], run[-1]
        repeats = f" +{first.repeats} repeated" if first.repeats.high else ""
        blocked = [row.blocked_ns / 1e6 for row in run]
        yield {
            "index": ranges(row.index for row in run),
            "what": touch_words(first) + (f" .. {last.page}" if len(run) > 1 else ""),
            "predicted": "/".join(first.predicted) + repeats,
            "seen": outcome_words(first.seen),
            "reader": first.reader.value,
            "blocked": f"{min(blocked):.1f}" if len(run) == 1 else f"{min(blocked):.1f}..{max(blocked):.1f}",
            "ok": first.ok,
            "why": first.why if not first.ok else "",
        }


def _tail(text: str) -> str:
    return "\n".join(text.strip().splitlines()[-_CONSOLE_LINES:])[-_CONSOLE_CHARS:]
