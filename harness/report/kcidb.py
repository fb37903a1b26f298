# SPDX-License-Identifier: GPL-2.0-or-later
"""kcidb.json: the run as KCIDB takes it (schema v5.3), for kernel CI systems that report there.

A kernel of the run is a build without sources of its own; the path of a test is "apf.<scenario>".  The origin is for
whoever submits it to choose; "apf" stands for a run that nobody submits.
"""

from __future__ import annotations

import json
import re
from typing import Any, assert_never

from harness.report.explain_verdict import explain_verdict
from harness.report.printable import printable
from harness.results import Key, Row, RunResult
from harness.status import Status

VERSION = {"major": 5, "minor": 3}
_EXCERPT = 16 * 1024
"""Characters of log_excerpt that the schema allows."""
_NOT_PATH = re.compile(r"[^a-zA-Z0-9_-]+")


def kcidb_json(result: RunResult, origin: str = "apf") -> str:
    """The run as JSON text.

    :param origin: name of the CI system, of lower-case letters, digits and underscores.
    """
    kernels = list(dict.fromkeys(key.kernel for key in result.planned))
    by_key = {row.key: row for row in result.rows}
    return json.dumps(
        {
            "version": VERSION,
            "checkouts": [_checkout(result, kernel, origin) for kernel in kernels],
            "builds": [_build(result, kernel, origin) for kernel in kernels],
            "tests": [_test(result, key, by_key.get(key), origin) for key in result.planned],
        },
        indent=1,
    )


def _checkout(result: RunResult, kernel: str, origin: str) -> dict[str, Any]:
    told = result.facts.get(f"{kernel} made from", "")
    return {"id": f"{origin}:{result.run}:{kernel}", "origin": origin, "comment": printable(f"{kernel} {told}".strip())}


def _build(result: RunResult, kernel: str, origin: str) -> dict[str, Any]:
    name = f"{origin}:{result.run}:{kernel}"
    return {
        "id": name,
        "checkout_id": name,
        "origin": origin,
        "comment": result.facts.get(f"{kernel} release", kernel),
        "architecture": "x86_64",
    }


def _test(result: RunResult, key: Key, row: Row | None, origin: str) -> dict[str, Any]:
    test: dict[str, Any] = {
        "id": f"{origin}:{result.run}:{key.folder}",
        "build_id": f"{origin}:{result.run}:{key.kernel}",
        "origin": origin,
        "path": f"apf.{_NOT_PATH.sub('_', key.scenario)}",
        "status": status_of(row),
    }
    if "accelerator" in result.facts:
        test["environment"] = {"comment": result.facts["accelerator"]}
    if row is not None:
        test |= {
            "comment": printable(row.title or str(key)),
            "duration": round(row.seconds, 3),
            "misc": {"verdict": row.verdict.word, "model": row.verdict.model, "green": result.is_green(row)},
        }
        if row.status is not Status.PASS:
            test["log_excerpt"] = printable("\n".join(explain_verdict(row.verdict)))[:_EXCERPT]
    return test


def status_of(row: Row | None) -> str:
    """KCIDB's word: FAIL is about the tested code, ERROR about the test, MISS about the harness."""
    if row is None:
        return "MISS"
    match row.status:
        case Status.PASS:
            return "PASS"
        case Status.FAIL | Status.FINDING:
            return "FAIL"
        case Status.INCONCLUSIVE:
            return "ERROR"
        case Status.UNSUPPORTED:
            return "SKIP"
        case Status.ERROR:
            return "MISS"
        case _:
            assert_never(row.status)
