# SPDX-License-Identifier: GPL-2.0-or-later
"""How much processor time each test takes, and which of them `make test` leaves to `make test-all` for it.

    make long     measures all tests and writes tests/long.txt

Processor time, with that of the processes that a test has started and waited for, hardly hangs on what else the machine
does.  The quickest test of a file always stays with `make test`, so that it runs something of every file.
"""

from __future__ import annotations

import functools
import os
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

LONG = Path(__file__).parent / "long.txt"
LONG_S = 0.3
"""Seconds of processor time.  What is left then is done in about a minute on two processors."""
SPENT, NODE = "cpu_s", "node"
"""Properties of a test in pytest's junit.xml."""


def spent_by_now() -> float:
    """Seconds of processor time of this process and of its children that have ended."""
    now = os.times()
    return now.user + now.system + now.children_user + now.children_system


@functools.cache
def listed() -> frozenset[str]:
    """The tests in tests/long.txt, by their node ids."""
    return frozenset(LONG.read_text().splitlines())


def long_ones(spent: Mapping[str, float]) -> list[str]:
    """Those that take longer, in order; not the quickest of its file."""
    files: dict[str, list[str]] = defaultdict(list)
    for node in spent:
        files[node.split("::")[0]].append(node)
    quickest = {min(nodes, key=lambda node: (spent[node], node)) for nodes in files.values()}
    return sorted(node for node, seconds in spent.items() if seconds > LONG_S and node not in quickest)


def read(report: Path) -> dict[str, float]:
    """Seconds by node id, of a junit.xml of pytest."""
    found = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        told = {entry.get("name"): entry.get("value") for entry in case.iter("property")}
        if (node := told.get(NODE)) is not None and (seconds := told.get(SPENT)) is not None:
            found[node] = float(seconds)
    return found


if __name__ == "__main__":
    times = read(Path(sys.argv[1]))
    kept = long_ones(times)
    LONG.write_text("".join(f"{node}\n" for node in kept))
    print(
        f"{len(kept)} of {len(times)} tests take more than {LONG_S} s:"
        f" {sum(times[node] for node in kept):.0f} s of {sum(times.values()):.0f} s of processor time"
    )
