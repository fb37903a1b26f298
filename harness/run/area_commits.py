# SPDX-License-Identifier: GPL-2.0-or-later
"""Commits of a kernel's tree that changed the functions that a verdict names."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.errors import UsageError
from harness.report.explain_verdict import Citation

_DEADLINE_S = 60.0
_FORMAT = "%h %as %s"


def area_commits(tree: Path, citations: Sequence[Citation], most: int = 3) -> tuple[str, ...]:
    """The newest commits, each "hash date subject (file:function)"; functions in turn, each commit once.

    A function's own history is asked for (git log -L); where the tree has no such function, that of its file.

    :raise UsageError: it is no git tree.
    """
    if subprocess.run(["git", "-C", tree, "rev-parse"], capture_output=True, check=False).returncode != 0:
        raise UsageError(f"{tree} is no git tree: no commits can be named")
    found: dict[str, str] = {}
    logs = [list(_log(tree, citation, most)) for citation in citations]
    for n in range(most):
        for citation, log in zip(citations, logs, strict=True):
            if n < len(log):
                found.setdefault(log[n].partition(" ")[0], f"{log[n]} ({citation})")
    return tuple(found.values())[:most]


def _log(tree: Path, citation: Citation, most: int) -> Iterator[str]:
    base = ["git", "-C", str(tree), "log", f"--format={_FORMAT}", f"-{most}", "-s"]
    for way in ([f"-L:{citation.function}:{citation.file}"], ["--", citation.file]):
        try:
            done = subprocess.run(
                [*base, *way], capture_output=True, text=True, errors="replace", check=False, timeout=_DEADLINE_S
            )
        except subprocess.TimeoutExpired:
            continue
        if done.returncode == 0 and done.stdout.strip():
            yield from done.stdout.splitlines()
            return
