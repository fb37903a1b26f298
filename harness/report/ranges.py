# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers as ranges for people."""

from __future__ import annotations

from collections.abc import Iterable


def ranges(numbers: Iterable[int], separator: str = ", ") -> str:
    """[0, 1, 2, 5] -> "0-2, 5"; sorted, each number once."""
    found: list[list[int]] = []
    for n in sorted(set(numbers)):
        if found and found[-1][1] == n - 1:
            found[-1][1] = n
        else:
            found.append([n, n])
    return separator.join(str(a) if a == b else f"{a}-{b}" for a, b in found)
