# SPDX-License-Identifier: GPL-2.0-or-later
"""Page sets laid out in the pool, and the names that steps use for them: "f", "f[3]", "f[0:4]", "f[::2]"."""

from __future__ import annotations

import re
from collections.abc import Mapping

from harness.contract.plan import PAGE_SIZE, POOL_GPA
from harness.contract.probe_abi import MAX_ITEMS
from harness.errors import ScenarioError
from harness.scenario.schema import PageSet

HUGE = 512
"""Pages in 2 MiB: what VMA read-ahead is clipped to (mm/swap_state.c:swap_ra_info), and our unit of placement."""

_NAME = re.compile(r"^(?P<set>[A-Za-z_][A-Za-z0-9_-]*)(\[(?P<index>[-0-9:]{0,60})\])?\Z")


def is_set_name(text: str) -> bool:
    """Whether a step could name such a set."""
    match = _NAME.match(text)
    return match is not None and match["index"] is None


def lay_out(sets: Mapping[str, PageSet]) -> dict[str, tuple[int, ...]]:
    """Set name -> GPAs of its pages in address order; sets without an offset go on a fresh 2 MiB range each."""
    placed: dict[str, tuple[int, ...]] = {}
    free = 0
    for name, spec in sets.items():
        first = spec.offset if spec.offset >= 0 else free
        numbers = [first + g * spec.stride + r for g in range(spec.groups) for r in range(spec.run)]
        placed[name] = tuple(POOL_GPA + n * PAGE_SIZE for n in numbers)
        free = max(free, -(-(numbers[-1] + 1) // HUGE) * HUGE)
    return placed


def select(placed: Mapping[str, tuple[int, ...]], names: str | tuple[str, ...]) -> list[tuple[str, int]]:
    """The pages that a step names, in order, as (name, GPA).

    :raise ScenarioError: no such set, an index outside it, or a name that cannot be read.
    """
    chosen: list[tuple[str, int]] = []
    for text in (names,) if isinstance(names, str) else names:
        match = _NAME.match(text)
        if match is None:
            raise ScenarioError(f"{text[:100]!r} is not a page name such as f, f[3] or f[0:4]")
        name, index = match["set"], match["index"]
        if name not in placed:
            raise ScenarioError(f"there is no page set {name!r} (there are: {', '.join(placed) or 'none'})")
        pages = placed[name]
        wanted = _indices(text, index, len(pages))
        if len(chosen) + len(wanted) > MAX_ITEMS:
            raise ScenarioError(
                f"{text[:100]!r}: more than {MAX_ITEMS} pages, and the guest's program has room for no more"
            )
        chosen += [(f"{name}[{i}]", pages[i]) for i in wanted]
    return chosen


def _indices(text: str, index: str | None, size: int) -> range:
    if index is None:
        return range(size)
    try:
        parts = [int(p) if p else None for p in index.split(":")]
    except ValueError:
        raise ScenarioError(f"{text[:100]!r}: {index!r} is not an index or a slice") from None
    if len(parts) == 1 and parts[0] is not None:
        if not -size <= parts[0] < size:
            raise ScenarioError(f"{text[:100]!r}: the set has {size} pages")
        at = parts[0] % size
        return range(at, at + 1)
    if len(parts) in (2, 3) and (len(parts) < 3 or parts[2] != 0):
        found = range(size)[slice(*parts)]
        if not found:
            raise ScenarioError(f"{text[:100]!r} selects no page of {size}")
        return found
    raise ScenarioError(f"{text[:100]!r}: {index!r} is not an index or a slice")
