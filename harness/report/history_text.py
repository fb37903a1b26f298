# SPDX-License-Identifier: GPL-2.0-or-later
"""A night of runs as plain text, for a terminal or the body of a mail: at most 78 columns, what matters first."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from harness.report.history_trends import BadStreak, Flaky, Night, NightRun, NightVerdict, VerdictChange
from harness.report.printable import printable

_WIDTH = 78
_REASON_LINES = 3


def subject_line(night: Night) -> str:
    """One line that says it all."""
    date = night.runs[-1].began[:10] if night.runs else "no run"
    bad = len({v.now.subject for v in night.bad})
    fresh = sum(not change.now.green for change in night.changes)
    green = len({v.subject for v in night.verdicts}) - bad
    if not night.runs:
        return "apf: no run"
    if night.green and not bad:
        return f"apf {date}: green, {green} scenarios"
    troubles = sum(len(run.troubles) + run.missing for run in night.runs)
    words = [f"{bad} bad" + (f" ({fresh} new)" if fresh else ""), f"{green} green"]
    return f"apf {date}: {', '.join([*words, *([f'{troubles} troubles'] if troubles else [])])}"


def night_text(night: Night) -> str:
    """What happened, and what of it is new."""
    lines = [subject_line(night), ""]
    for run in night.runs:
        lines += _run(run)
    sections = (
        ("Changed since the last run", [*_changes(night)]),
        ("Bad, and since when", [line for streak in night.bad for line in _streak(streak)]),
        ("Flaky", [line for flaky in night.flaky for line in _flaky(flaky)]),
        ("Not run any more", [f"  {_name(verdict)}" for verdict in night.gone]),
    )
    for title, body in sections:
        if body:
            lines += ["", f"{title}:", *body]
    return "\n".join(lines) + "\n"


def mail_text(night: Night, sender: str, to: str) -> str:
    """The same as a message for sendmail -t."""
    head = f"From: {_header(sender)}\nTo: {_header(to)}\nSubject: {_header(subject_line(night))}\n"
    return f"{head}MIME-Version: 1.0\nContent-Type: text/plain; charset=utf-8\n\n{night_text(night)}"


def _header(text: str) -> str:
    return "".join(c for c in printable(text) if c not in "\r\n")


def _run(run: NightRun) -> Iterator[str]:
    ended = {0: "green", 1: "not green", 2: "scenario files refused", 3: "errors", 130: "interrupted"}.get(
        run.exit_code, str(run.exit_code)
    )
    missing = f", {run.missing} without a verdict" if run.missing else ""
    yield f"{run.began[:16]} on {run.host}: {ended}, {run.seconds / 60:.0f} min{missing}"
    yield from _wrapped(run.command, "  ")
    for trouble in run.troubles:
        yield from _wrapped(f"TROUBLE: {trouble}", "  ")


def _changes(night: Night) -> Iterator[str]:
    """What is new and green is counted only."""
    plain = [change for change in night.changes if change.was is None and change.now.green]
    for change in night.changes:
        if change not in plain:
            yield from _change(change)
    if plain:
        yield f"  {len(plain)} run for the first time, green"


def _change(change: VerdictChange) -> Iterator[str]:
    was, now = change.was, change.now
    yield f"  {_name(now)}: {was.status.value if was else 'new'} -> {now.status.value}"
    if was is not None and was.build != now.build:
        yield from _wrapped(f"with another kernel: {now.build}, before {was.build}", "    ")
    if not now.green:
        yield from _why(now)


def _streak(streak: BadStreak) -> Iterator[str]:
    times = f", {streak.verdicts} runs" if streak.verdicts > 1 else ""
    yield f"  {_name(streak.now)}: {streak.now.status.value} since {streak.first.began[:16]}{times}"
    if streak.last_green is None:
        yield "    never green before"
    elif streak.last_green.build == streak.first.build:
        yield f"    last green {streak.last_green.began[:16]}, on the same kernel"
    else:
        yield f"    last green {streak.last_green.began[:16]}, on another kernel:"
        yield from _wrapped(f"{streak.last_green.build} then, {streak.first.build} now", "    ")
    yield f"    first bad: {streak.first.folder}"


def _flaky(flaky: Flaky) -> Iterator[str]:
    yield f"  {_name(flaky.now)}: bad in {flaky.bad} of {flaky.verdicts} ({flaky.rate:.0%}) on one kernel"


def _name(verdict: NightVerdict) -> str:
    host = f" at {verdict.host}" if verdict.host != "virtual" else ""
    return printable(f"{verdict.scenario} on {verdict.kernel}{host}")


def _why(verdict: NightVerdict) -> list[str]:
    return [*_wrapped(verdict.reason, "    ")[:_REASON_LINES], f"    evidence: {verdict.folder}"]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        printable(text), _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
