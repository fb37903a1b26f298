# SPDX-License-Identifier: GPL-2.0-or-later
"""results.tap: Test Anything Protocol, version 13."""

from __future__ import annotations

from harness.report.verdict_text import reason_text
from harness.results import RunResult
from harness.status import Status


def tap_text(result: RunResult) -> str:
    """One line per planned verdict; a missing one is not ok."""
    by_key = {row.key: row for row in result.rows}
    lines = ["TAP version 13", f"1..{len(result.planned)}"]
    for number, key in enumerate(result.planned, 1):
        row = by_key.get(key)
        name = str(key).replace("#", r"\#")
        if row is None:
            lines += [f"not ok {number} - {name}", "# no verdict: the run ended before"]
            continue
        why = _line(reason_text(row.verdict))
        skip = f" # SKIP {why}" if row.status is Status.UNSUPPORTED and result.is_green(row) else ""
        lines.append(f"{'ok' if result.is_green(row) else 'not ok'} {number} - {name}{skip}")
        if not skip and row.status is not Status.PASS:
            lines.append(f"# {row.status}: {why}")
    return "\n".join(lines) + "\n"


def _line(text: str) -> str:
    return " ".join(text.split())
