# SPDX-License-Identifier: GPL-2.0-or-later
"""A run with a verdict of each kind, and texts that are hostile to every format."""

from __future__ import annotations

from harness.judge.verdict_types import Finding, KnownFaultRow
from harness.results import AcceptedFinding, Key, RunResult
from harness.status import Status
from tests.unit.rows import row_of

HOSTILE = "# SKIP \\# ::error::x]]>\x00\x1b[31m\u202e%0A,:\n1..9\nok 1 - not really\n---\n...\nBail out! <&>"
SHOWN = (KnownFaultRow("F1", predicted=True, shown=True),)


def every_kind() -> RunResult:
    """Eight planned, one without a verdict; S3 may be unsupported, F1 is accepted on k."""
    keys = [Key(f"S{n}", "debian-6.1") for n in range(7)] + [Key("S7", "k")]
    finding = Finding("D05", f"no RDY {HOSTILE}", line=80)
    rows = (
        row_of(keys[0], Status.PASS, title="fine", seconds=1.5),
        row_of(keys[1], Status.FAIL, f"D05: no RDY {HOSTILE}", title=HOSTILE, findings=(finding,)),
        row_of(keys[2], Status.INCONCLUSIVE, HOSTILE),
        row_of(keys[3], Status.UNSUPPORTED, f"no dm-delay {HOSTILE}"),
        row_of(keys[4], Status.UNSUPPORTED, "no zram"),
        row_of(keys[5], Status.ERROR, HOSTILE, log=HOSTILE),
        row_of(keys[7], Status.FINDING, "F1: known", known_faults=SHOWN),
    )
    accepted = (AcceptedFinding("F1", ("k",), "known"),)
    facts = {"accelerator": "tcg", "debian-6.1 release": "6.1.0-56", "debian-6.1 made from": "linux-image"}
    return RunResult("20261126-1", "apf run", tuple(keys), rows, facts, frozenset({"S3"}), accepted)
