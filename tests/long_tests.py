# SPDX-License-Identifier: GPL-2.0-or-later
"""Which tests `make test` leaves to `make test-all`, for what they take.

    make long     measures all tests, on a machine that does nothing else, and writes tests/long.txt

The quickest test of a file always stays, so that `make test` runs something of every file.
"""

from __future__ import annotations

import functools
import sys
import xml.etree.ElementTree as ET
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

LONG = Path(__file__).parent / "long.txt"
LONG_S = 0.15
"""Seconds.  What is left then is done in about a minute by two processes."""


@functools.cache
def listed() -> frozenset[str]:
    """The tests in tests/long.txt, by their node ids."""
    return frozenset(LONG.read_text().splitlines())


def long_ones(took: Mapping[str, float]) -> list[str]:
    """Those that take longer, in order; not the quickest of its file."""
    files: dict[str, list[str]] = defaultdict(list)
    for node in took:
        files[node.split("::")[0]].append(node)
    quickest = {min(nodes, key=lambda node: (took[node], node)) for nodes in files.values()}
    return sorted(node for node, seconds in took.items() if seconds > LONG_S and node not in quickest)


def read(report: Path) -> dict[str, float]:
    """Seconds by node id, of a junit.xml of pytest."""
    found = {}
    for case in ET.parse(report).getroot().iter("testcase"):
        words = case.get("classname", "").split(".")
        file = max(n for n, word in enumerate(words) if word.startswith("test_")) + 1
        node = "::".join(["/".join(words[:file]) + ".py", *words[file:], case.get("name", "")])
        found[node] = float(case.get("time", "0"))
    return found


if __name__ == "__main__":
    times = read(Path(sys.argv[1]))
    kept = long_ones(times)
    LONG.write_text("".join(f"{node}\n" for node in kept))
    of = f"{sum(times[node] for node in kept):.0f} s of {sum(times.values()):.0f} s"
    print(f"{len(kept)} of {len(times)} tests take more than {LONG_S} s each: {of}")
