# SPDX-License-Identifier: GPL-2.0-or-later
"""results.json: the whole run for machines."""

from __future__ import annotations

import json
from typing import Any

from harness.results import Row, RunResult


def row_object(row: Row) -> dict[str, Any]:
    """One verdict as plain JSON data (also written as verdict.json in its folder)."""
    return {
        "scenario": row.key.scenario,
        "kernel": row.key.kernel,
        "repeat": row.key.repeat,
        "variant": row.variant,
        "title": row.title,
        "verdict": row.status.value,
        "reason": row.reason,
        "seen": dict(row.seen),
        "predicted": dict(row.predicted),
        "seconds": round(row.seconds, 3),
        "folder": row.folder,
    }


def results_json(result: RunResult) -> str:
    """The run as JSON text; the verdicts in the order in which they were planned."""
    order = {key: n for n, key in enumerate(result.planned)}
    rows = sorted(result.rows, key=lambda row: order.get(row.key, len(order)))
    return json.dumps(
        {
            "format": 1,
            "run": result.run,
            "command": result.command,
            "facts": dict(result.facts),
            "exit_code": result.exit_code,
            "interrupted": result.interrupted,
            "seconds": round(result.seconds, 3),
            "allowed_unsupported": sorted(result.allowed),
            "planned": len(result.planned),
            "missing": [{"scenario": k.scenario, "kernel": k.kernel, "repeat": k.repeat} for k in result.missing],
            "verdicts": [row_object(row) | {"green": result.is_green(row)} for row in rows],
        },
        indent=1,
    )
