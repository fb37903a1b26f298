# SPDX-License-Identifier: GPL-2.0-or-later
"""What Avocado is told about a finished scenario process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import UsageError
from harness.judge.verdict_types import Verdict
from harness.report.verdict_text import reason_text
from harness.status import Status


@dataclass(frozen=True, slots=True)
class AvocadoResult:
    """``result`` is one of Avocado's words; ``whiteboard`` is results.json, so that nothing of it is lost."""

    result: str
    reason: str = ""
    details: str = ""
    whiteboard: str = ""


_RESULT = {
    Status.PASS: "pass",
    Status.FINDING: "fail",
    Status.FAIL: "fail",
    Status.INCONCLUSIVE: "fail",
    Status.UNSUPPORTED: "fail",
    Status.ERROR: "error",
}


def read_result(results: Path, code: int, said: str, *, stopped: bool, allowed: Sequence[str]) -> AvocadoResult:
    """The result of a child that ended with ``code`` and wrote ``said``.

    Only a verdict in results.json counts, never the exit code alone.  UNSUPPORTED is a skip where it is allowed by
    name, and a failure otherwise: Avocado counts skips as success.  FINDING is a warning where it is accepted.
    """
    tail = "\n".join(said.splitlines()[-30:])
    board, verdict, green = _read(results / "latest")
    if stopped:
        return AvocadoResult("interrupted", "terminated before its verdict", tail, board)
    if verdict is None:
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        last = next((line for line in said.splitlines() if line.startswith("apf: ")), "")
        return AvocadoResult(
            "error", f"the scenario process died without a verdict ({how}) {last}".strip(), tail, board
        )
    reason = "" if verdict.status is Status.PASS else f"{verdict.word}: {reason_text(verdict)}"
    if verdict.status is Status.FINDING and green:
        return AvocadoResult("warn", reason, tail, board)
    skipped = verdict.status is Status.UNSUPPORTED and verdict.scenario in allowed
    return AvocadoResult("skip" if skipped else _RESULT[verdict.status], reason, tail, board)


def _read(run: Path) -> tuple[str, Verdict | None, bool]:
    """The text of results.json, the verdict when there is exactly one and none is missing, and whether it is green."""
    board = ""
    try:
        board = (run / "results.json").read_text()
        raw = json.loads(board)
        if len(raw["verdicts"]) != 1 or raw["missing"]:
            return board, None, False
        row = raw["verdicts"][0]
        return board, Verdict.from_json((run / row["verdict_file"]).read_text()), row["green"] is True
    except (OSError, ValueError, KeyError, TypeError, UsageError):
        return board, None, False
