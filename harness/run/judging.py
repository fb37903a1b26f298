# SPDX-License-Identifier: GPL-2.0-or-later
"""A capture folder on disk, judged."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from harness.errors import CaptureDamaged
from harness.report.results import Status


@dataclass(frozen=True, slots=True)
class Judged:
    """A verdict as the report wants it.  ``taints``: why the host must not be used again; empty if it may."""

    status: Status
    reason: str = ""
    details: str = ""
    seen: Mapping[str, int] = field(default_factory=dict)
    predicted: Mapping[str, str] = field(default_factory=dict)
    taints: str = ""


def read_capture(folder: Path) -> dict[str, bytes]:
    """The files of a capture by their path below its folder.

    :raise CaptureDamaged: there is no such folder, or nothing in it.
    """
    files = {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
    if not files:
        raise CaptureDamaged(f"{folder}: no capture here")
    return files


def end_status(folder: Path) -> tuple[str, str]:
    """(status, reason) of end.json: how the agent's work ended.

    :raise CaptureDamaged: there is none, or it cannot be read.
    """
    try:
        raw = json.loads((folder / "end.json").read_text())
        return str(raw["status"]), str(raw.get("reason", ""))
    except (OSError, ValueError, KeyError, TypeError) as exc:
        raise CaptureDamaged(f"{folder}/end.json: {exc!r}") from exc
