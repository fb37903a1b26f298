# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of accepted findings: faults of shipped kernels that are known and do not make a run red.

    [[accepted]]
    finding = "F1"                          # docs/findings.md
    kernels = ["debian-6.1", "noio-*"]      # names as a run has them, or globs
    reason = "not fixed upstream yet"

It is for what is known to be there and cannot be mended today.  A run tells when a kernel does not show it any more.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.model.known_faults import KNOWN_FAULTS
from harness.results import AcceptedFinding

_KEYS = ("finding", "kernels", "reason")


def read_accepted_findings(path: Path) -> tuple[AcceptedFinding, ...]:
    """The entries of the file.

    :raise UsageError: it cannot be read, or something in it is wrong; the message has all of it.
    """
    try:
        raw = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
        raise UsageError(f"{path}: {exc}") from exc
    entries = raw.get("accepted", [])
    problems = [f"unknown key {key!r}" for key in raw if key != "accepted"]
    if not isinstance(entries, list):
        problems.append("accepted is no list of tables")
        entries = []
    for n, entry in enumerate(entries):
        problems += [f"accepted[{n}]{problem}" for problem in _problems(entry)]
    if problems:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    return tuple(AcceptedFinding(e["finding"], tuple(e["kernels"]), e["reason"]) for e in entries)


def _problems(entry: Any) -> Iterator[str]:
    if not isinstance(entry, dict):
        yield ": no table"
        return
    yield from (f".{key}: unknown key" for key in entry if key not in _KEYS)
    if entry.get("finding") not in KNOWN_FAULTS:
        yield f".finding: {entry.get('finding')!r} is not one of {', '.join(KNOWN_FAULTS)}"
    kernels = entry.get("kernels")
    if not isinstance(kernels, list) or not kernels or not all(isinstance(k, str) and k for k in kernels):
        yield ".kernels: must be names of kernels"
    reason = entry.get("reason")
    if not isinstance(reason, str) or not reason.strip():
        yield ".reason: must say why it is accepted"
