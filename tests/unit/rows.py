# SPDX-License-Identifier: GPL-2.0-or-later
"""Rows of a run's results that were made by hand."""

from __future__ import annotations

from typing import Any

from harness.judge.verdict_types import Finding, Verdict
from harness.results import Key, Row
from harness.status import Status


def row_of(key: Key, status: Status, reason: str = "", *, title: str = "", seconds: float = 0.0, **more: Any) -> Row:
    """A row whose verdict has these fields; a reason that names a rule ("D05: ...") comes with that finding."""
    rule, colon, message = reason.partition(": ")
    if status is Status.FAIL and colon and "findings" not in more:
        more["findings"] = (Finding(rule, message),)
    return Row(key, Verdict(scenario=key.scenario, status=status, reason=reason, **more), title, seconds)
