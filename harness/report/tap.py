# SPDX-License-Identifier: GPL-2.0-or-later
"""results.tap: Test Anything Protocol, version 13, as kselftest writes it (Documentation/dev-tools/ktap.rst).

What is known of a test stands in diagnostic lines before its result line, where readers of KTAP expect it.
"""

from __future__ import annotations

from collections.abc import Iterator

from harness.report.explain_verdict import explain_verdict
from harness.report.printable import printable
from harness.report.verdict_text import reason_text
from harness.results import Key, Row, RunResult
from harness.status import Status


def tap_text(result: RunResult) -> str:
    """One result line per planned verdict; a missing one is not ok, an accepted finding is not ok and TODO."""
    by_key = {row.key: row for row in result.rows}
    lines = ["TAP version 13", f"1..{len(result.planned)}"]
    for number, key in enumerate(result.planned, 1):
        lines += _test(result, number, key, by_key.get(key))
    lines += [f"# {_line(text)}" for text in (*result.to_retire, *result.troubles, *result.refused)]
    lines.append(_totals(result))
    return "\n".join(lines) + "\n"


def _test(result: RunResult, number: int, key: Key, row: Row | None) -> Iterator[str]:
    name = str(key).replace("#", r"\#")
    if row is None:
        yield "# no verdict: the run ended before"
        yield f"not ok {number} - {name}"
        return
    why = _line(reason_text(row.verdict))
    green = result.is_green(row)
    directive, ok = "", green
    if row.status is Status.UNSUPPORTED and green:
        directive = f" # SKIP {why}"
    elif row.status is Status.FINDING and green:
        directive, ok = f" # TODO {row.verdict.word}: {why}", False  # known to fail, and accepted so
    if not directive and row.status is not Status.PASS:
        yield f"# {row.verdict.word}: {why}"
        for line in explain_verdict(row.verdict)[1:] if row.verdict.findings else ():
            yield f"# {_line(line)}"
    yield f"{'ok' if ok else 'not ok'} {number} - {name}{directive}"


def _totals(result: RunResult) -> str:
    """tools/testing/selftests/kselftest.h:ksft_print_cnts; an accepted finding is an expected failure."""
    passed = sum(row.status is Status.PASS for row in result.rows)
    skipped = sum(row.status is Status.UNSUPPORTED and result.is_green(row) for row in result.rows)
    expected = sum(row.status is Status.FINDING and result.is_green(row) for row in result.rows)
    errors = sum(row.status is Status.ERROR for row in result.rows) + len(result.missing)
    failed = len(result.planned) - passed - skipped - expected - errors
    return f"# Totals: pass:{passed} fail:{failed} xfail:{expected} xpass:0 skip:{skipped} error:{errors}"


def _line(text: str) -> str:
    return printable(" ".join(text.split()))
