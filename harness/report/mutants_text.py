# SPDX-License-Identifier: GPL-2.0-or-later
"""The table of `make mutants`: mutant by scenario, what caught it, and whether that names the fault."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class MutantLine:
    """One mutant.

    :ivar cells: scenario -> verdict and rules.
    :ivar catch: "caught", "caught otherwise", "SURVIVED", "not run", or "equivalent".
    :ivar caught_by: the rules that were broken.
    :ivar note: why nobody can notice it; or how what was seen differs from what was expected.
    """

    name: str
    number: int
    about: str
    imitates: str
    cells: tuple[tuple[str, str], ...]
    catch: str
    caught_by: str
    note: str = ""


def mutants_table(lines: Sequence[MutantLine], control: Sequence[tuple[str, str]]) -> list[str]:
    """Plain text: the unmutated kernel, a line per mutant, then by name what was not caught by a rule that names it."""
    text = ["unmutated kernel: " + (", ".join(f"{s} {verdict}" for s, verdict in control) or "not run"), ""]
    width = min(64, max((len(line.name) for line in lines), default=6))
    for line in lines:
        cells = "  ".join(f"{scenario} {what}" for scenario, what in line.cells) or "no scenario was run"
        text.append(f"{line.number:>4}  {line.name:<{width}}  {line.catch:<16}  {cells}")
        text.append(f"      {'':<{width}}  {line.about} [{line.imitates}]" + (f"  {line.note}" if line.note else ""))
    counts = Counter(line.catch for line in lines)
    text += ["", f"{len(lines)} mutants: " + ", ".join(f"{n} {word}" for word, n in counts.most_common())]
    for word in ("SURVIVED", "caught otherwise", "not run"):
        names = [line.name for line in lines if line.catch == word]
        if names:
            text += [f"{word}:", *(f"    {name}" for name in names)]
    return text
