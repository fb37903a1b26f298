# SPDX-License-Identifier: GPL-2.0-or-later
"""Scenarios that go through every page state x backing x access x state of the neighbour that a plan can express.

    python -m tests.grid.grid FOLDER && apf run --scenarios FOLDER --kernel debian-6.1

One scenario per backing and way of touching; in it one pair of adjacent pages for each combination, far from others:
the first page is touched, and when that is over the second one is read, and written.  docs/grid.md has the result.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from itertools import product
from pathlib import Path

STRIDE = 160
"""Pages between two pairs: more than any read-ahead window, or what a window more can reach."""
_SWAP = ("untouched", "populated", "swapcache", "swapped", "zero-swapped")


@dataclass(frozen=True, slots=True)
class Ground:
    """A backing on a device.  ``states``: the page states that it can have."""

    name: str
    memory: str
    swap: str
    states: tuple[str, ...]


_DELAY = 'kind = "dm-delay"\ndelay_ms = 60\n'
GROUNDS = (
    Ground("anon", 'backing = "anon"\n', _DELAY + "page_cluster = 3\n", _SWAP),
    Ground("anon-single", 'backing = "anon"\n', _DELAY + "page_cluster = 0\n", _SWAP),
    Ground("anon-zram", 'backing = "anon"\n', 'kind = "zram"\npage_cluster = 0\n',
           tuple(s for s in _SWAP if s != "swapcache")),
    Ground("memfd", 'backing = "memfd"\nshare = true\n', _DELAY + "page_cluster = 0\n", _SWAP),
    Ground("file", 'backing = "file"\nshare = true\n', _DELAY, ("untouched", "populated", "dropped")),
    Ground("file-private", 'backing = "file"\nshare = false\n', _DELAY, ("untouched", "dropped")),
    Ground("file-random", 'backing = "file"\nshare = true\nrandom_advice = true\n', _DELAY,
           ("untouched", "populated", "dropped")),
)  # fmt: skip
ACCESSES = ("read", "write")
WAYS = {"async": "", "sync": "cpl = 0\ninterrupts = false\n", "halt": "cpl = 0\n"}
"""CPL 3 with IF=1: a token if the page is missing; IF=0: the vCPU thread waits; CPL 0: an artificial halt."""


def neighbours_of(ground: Ground) -> list[tuple[str, str]]:
    """(state, state of the neighbour).  Without a hole next to a dropped page: the agent refuses a read-around window
    that does not lie in one piece on the device (harness/agent/pages/prove.py)."""
    return [(a, b) for a, b in product(ground.states, repeat=2) if {a, b} != {"untouched", "dropped"}]


def scenario(ground: Ground, way: str) -> str:
    """The TOML of one scenario."""
    pairs = neighbours_of(ground)
    text = [
        f'id = "grid-{ground.name}-{way}"\ntitle = "{ground.name}, {way}: {2 * len(pairs)} pairs of neighbours"\n'
        f'why = "Every page state, access and state of the neighbour."\ntags = ["grid"]\ndeadline_s = 120\n',
        f"[guest]\nmemory_mib = 160\n\n[memory]\n{ground.memory}\n[swap]\n{ground.swap}",
    ]
    steps = []
    for n, states in enumerate(pairs):
        for letter, start, offset in zip("ab", states, (0, 1), strict=True):
            at = 32 + 2 * n * STRIDE + offset
            text.append(f'[pages.{letter}{n}]\ngroups = 2\nstride = {STRIDE}\noffset = {at}\nstart = "{start}"\n')
        for group, access in enumerate(ACCESSES):
            for letter, how in (("a", access), ("b", "read"), ("b", "write")):
                touch = f'touch = "{letter}{n}[{group}]"\naccess = "{how}"'
                steps.append(f'[[steps]]\n{touch}\nthen = "wait"\n{WAYS[way]}')
    return "\n".join([*text, *steps])


def all_scenarios() -> dict[str, str]:
    """File name -> TOML."""
    return {f"grid-{g.name}-{way}.toml": scenario(g, way) for g, way in product(GROUNDS, WAYS)}


def main(folder: str) -> None:
    """Write them."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    for name, text in all_scenarios().items():
        (Path(folder) / name).write_text(text)


if __name__ == "__main__":
    main(sys.argv[1])
