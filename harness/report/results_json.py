# SPDX-License-Identifier: GPL-2.0-or-later
"""results.json: the whole run for machines (docs/formats/results.md)."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from harness.results import Key, Row, RunResult

RESULTS_FORMAT = 1
"""The number of the file's format; it changes when a reader of the old one would misread the new one."""


def results_json(result: RunResult) -> str:
    """The run as JSON text; the verdicts in the order in which they were planned."""
    order = {key: n for n, key in enumerate(result.planned)}
    rows = sorted(result.rows, key=lambda row: order.get(row.key, len(order)))
    return json.dumps(
        {
            "format": RESULTS_FORMAT,
            "run": result.run,
            "command": result.command,
            "facts": dict(result.facts),
            "exit_code": result.exit_code,
            "interrupted": result.interrupted,
            "seconds": round(result.seconds, 3),
            "allowed_unsupported": sorted(result.allowed),
            "accepted_findings": [asdict(accepted) for accepted in result.accepted],
            "to_retire": list(result.to_retire),
            "troubles": list(result.troubles),
            "refused": list(result.refused),
            "planned": len(result.planned),
            "missing": [_key(key) for key in result.missing],
            "verdicts": [_row(row) | {"green": result.is_green(row)} for row in rows],
        },
        indent=1,
    )


def _key(key: Key) -> dict[str, Any]:
    return {"scenario": key.scenario, "kernel": key.kernel, "repeat": key.repeat}


def _row(row: Row) -> dict[str, Any]:
    """A verdict's line in the run; everything else about it is in its own file, which ``verdict_file`` names."""
    return _key(row.key) | {
        "title": row.title,
        "variant": row.variant,
        "verdict": row.status.value,
        "known_faults": [asdict(known) for known in row.verdict.known_faults],
        "stage": row.verdict.stage.value,
        "reason": row.verdict.reason,
        "seconds": round(row.seconds, 3),
        "folder": row.folder,
        "verdict_file": f"{row.folder}/verdict.json",
    }
