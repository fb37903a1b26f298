# SPDX-License-Identifier: GPL-2.0-or-later
"""results.tap: Test Anything Protocol, version 13."""

from __future__ import annotations

from harness.report.verdict_text import reason_text
from harness.results import RunResult
from harness.status import Status


def tap_text(result: RunResult) -> str:
    """One line per planned verdict; a missing one is not ok, an accepted finding is not ok and TODO."""
    by_key = {row.key: row for row in result.rows}
    lines = ["TAP version 13", f"1..{len(result.planned)}"]
    for number, key in enumerate(result.planned, 1):
        row = by_key.get(key)
        name = str(key).replace("#", r"\#")
        if row is None:
            lines += [f"not ok {number} - {name}", "# no verdict: the run ended before"]
            continue
        why = _line(reason_text(row.verdict))
        green = result.is_green(row)
        directive, ok = "", green
        if row.status is Status.UNSUPPORTED and green:
            directive = f" # SKIP {why}"
        elif row.status is Status.FINDING and green:
            directive, ok = f" # TODO {row.verdict.word}: {why}", False  # known to fail, and accepted so
        lines.append(f"{'ok' if ok else 'not ok'} {number} - {name}{directive}")
        if not directive and row.status is not Status.PASS:
            lines.append(f"# {row.verdict.word}: {why}")
    lines += [f"# {_line(text)}" for text in result.to_retire]
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())
