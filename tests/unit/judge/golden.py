# SPDX-License-Identifier: GPL-2.0-or-later
"""The golden captures of tests/data, and changes of their trace that leave no trace in the counts beside it."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

CAPTURES = Path(__file__).parents[2] / "data/captures"
NAMES = sorted(p.name for p in CAPTURES.iterdir())
Files = dict[str, bytes]
_WRITTEN = re.compile(r"# entries-in-buffer/entries-written: \d+/\d+")


def load(name: str) -> Files:
    """A capture by name, its files by their paths in it."""
    folder = CAPTURES / name
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def is_event(line: str) -> bool:
    return bool(line.strip()) and not line.startswith("#")


def edit_trace(files: Files, change: Callable[[list[str]], list[str]], *, recount: bool = True) -> Files:
    """With other lines in the trace; ``recount``: as if the kernel had written just these."""
    lines = change(files["trace/events.txt"].decode().splitlines())
    if recount:
        lines, stats = recounted(lines, files["trace/stats.json"])
        files = {**files, "trace/stats.json": stats}
    return {**files, "trace/events.txt": "\n".join(lines).encode() + b"\n"}


def recounted(lines: Sequence[str], stats: bytes) -> tuple[list[str], bytes]:
    """The lines with the right counts in their head, and stats.json (format 1) with the right entries."""
    cpus = Counter(int(m[1]) for line in lines if is_event(line) and (m := re.search(r"\[(\d{3})\]", line)))
    table = json.loads(stats)
    for name, row in table.items():
        row["entries"] = cpus[int(name.removeprefix("cpu"))]
    total = sum(cpus.values())
    head = f"# entries-in-buffer/entries-written: {total}/{total + sum(row['overrun'] for row in table.values())}"
    return [_WRITTEN.sub(head, line) for line in lines], json.dumps(table).encode()
