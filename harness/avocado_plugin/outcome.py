# SPDX-License-Identifier: GPL-2.0-or-later
"""What Avocado is told about a finished scenario process."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.status import Status


@dataclass(frozen=True, slots=True)
class Outcome:
    """``result`` is one of Avocado's words; ``whiteboard`` is results.json, so that nothing of it is lost."""

    result: str
    reason: str = ""
    details: str = ""
    whiteboard: str = ""


_RESULT = {
    Status.PASS: "pass",
    Status.FAIL: "fail",
    Status.INCONCLUSIVE: "fail",
    Status.UNSUPPORTED: "fail",
    Status.ERROR: "error",
}


def read_outcome(results: Path, code: int, said: str, *, stopped: bool, allowed: Sequence[str]) -> Outcome:
    """The outcome of a child that ended with ``code`` and wrote ``said``.

    Only a verdict in results.json counts, never the exit code alone.  UNSUPPORTED is a skip where it is allowed by
    name, and a failure otherwise: Avocado counts skips as success.
    """
    tail = "\n".join(said.splitlines()[-30:])
    board = ""
    try:
        board = (results / "latest" / "results.json").read_text()
        raw = json.loads(board)
        verdicts, missing = raw["verdicts"], raw["missing"]
    except (OSError, ValueError, KeyError):
        verdicts, missing = [], []
    if stopped:
        return Outcome("interrupted", "terminated before its verdict", tail, board)
    if len(verdicts) != 1 or missing:
        how = f"signal {-code}" if code < 0 else f"exit {code}"
        last = next((line for line in said.splitlines() if line.startswith("apf: ")), "")
        return Outcome("error", f"the scenario process died without a verdict ({how}) {last}".strip(), tail, board)
    (verdict,) = verdicts
    status = Status(verdict["verdict"])
    reason = "" if status is Status.PASS else f"{status}: {verdict['reason']}"
    skipped = status is Status.UNSUPPORTED and verdict["scenario"] in allowed
    return Outcome("skip" if skipped else _RESULT[status], reason, tail, board)
