# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `make mutants`: mutant by scenario, what caught it, and whether that names the fault."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MutantLine:
    """One mutant.  ``cells``: scenario -> verdict and rule; ``caught_by``: the rule of the first divergence."""

    name: str
    number: int
    about: str
    imitates: str
    cells: tuple[tuple[str, str], ...]
    caught_by: str


def mutants_table(lines: Sequence[MutantLine], control: Sequence[tuple[str, str]]) -> list[str]:
    """Plain text: the unmutated kernel first, then a line per mutant; survivors are named at the end."""
    text = ["unmutated kernel: " + (", ".join(f"{s} {verdict}" for s, verdict in control) or "not run"), ""]
    width = max((len(line.name) for line in lines), default=6)
    for line in lines:
        cells = "  ".join(f"{scenario} {what}" for scenario, what in line.cells) or "no scenario was run"
        mark = "caught" if line.caught_by else "SURVIVED"
        text.append(f"{line.number:>3}  {line.name:<{width}}  {mark:<8}  {cells}")
        text.append(f"     {'':<{width}}  {line.about} [{line.imitates}]")
    survivors = [line.name for line in lines if not line.caught_by]
    text += ["", f"{len(lines) - len(survivors)} of {len(lines)} mutants caught"]
    if survivors:
        text.append(f"survivors: {', '.join(survivors)}: a hole in the harness")
    return text
