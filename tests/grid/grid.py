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
WAYS = {"async": "", "sync": "cpl = 0\ninterrupts = false\n", "halt": "cpl = 0\n"}
"""CPL 3 with IF=1: a token if the page is missing; IF=0: the vCPU thread waits; CPL 0: an artificial halt."""


def pairs_of(ground: Ground) -> list[tuple[str, str, str]]:
    """(state, state of the neighbour, access).  Without a hole next to a dropped page: the agent refuses a read-around
    window that does not lie in one piece on the device (harness/agent/pages/prove.py)."""
    every = product(ground.states, ground.states, ("read", "write"))
    return [(a, b, how) for a, b, how in every if {a, b} != {"untouched", "dropped"}]


def scenario(ground: Ground, way: str) -> str:
    """The TOML of one scenario."""
    pairs = pairs_of(ground)
    text = [
        f'id = "grid-{ground.name}-{way}"\ntitle = "{ground.name}, {way}: {len(pairs)} pairs of neighbours"\n'
        f'why = "Every page state, access and state of the neighbour."\ntags = ["grid"]\ndeadline_s = 120\n',
        f"[guest]\nmemory_mib = 160\n\n[memory]\n{ground.memory}\n[swap]\n{ground.swap}",
    ]
    steps = []
    for n, (state, neighbour, access) in enumerate(pairs):
        for letter, start in (("a", state), ("b", neighbour)):
            offset = 32 + n * STRIDE + (letter == "b")
            text.append(f'[pages.{letter}{n}]\ngroups = 1\noffset = {offset}\nstart = "{start}"\n')
        for name, how in ((f"a{n}", access), (f"b{n}", "read"), (f"b{n}", "write")):
            steps.append(f'[[steps]]\ntouch = "{name}"\naccess = "{how}"\nthen = "wait"\n{WAYS[way]}')
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
