# SPDX-License-Identifier: GPL-2.0-or-later
"""What `apf mutants` found, as one HTML file: each mistake, under which scenarios, what named it, how that looked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from harness.report.mutants_text import MutantLine, score
from harness.report.page.template import render, what_fits

_FATES = {
    "caught": "PASS",
    "caught otherwise": "FINDING",
    "SURVIVED": "FAIL",
    "undecided": "INCONCLUSIVE",
    "not run": "INCONCLUSIVE",
}
"""The look of a fate, as a verdict's; none of the others is anything to worry about."""
_FINE = ("caught", "equivalent", "out of reach")


@dataclass(frozen=True, slots=True)
class ShownTrial:
    """A mutant under one scenario.

    :ivar status: the verdict's word; empty: there is none.
    :ivar told: the verdict with what named the fault.
    :ivar folder: where its evidence is, as a link from the page; empty: there is none.
    """

    scenario: str
    status: str
    told: str
    folder: str


@dataclass(frozen=True, slots=True)
class ShownMutant:
    """One mutant.

    :ivar caught_under: the scenario that is told of in ``explained`` and drawn; empty: nothing caught it.
    :ivar timeline: SVG; empty where there is none, ``timeline_notes`` say why.
    :ivar repeat: the command that tries just this one again.
    """

    line: MutantLine
    trials: tuple[ShownTrial, ...]
    repeat: str
    caught_under: str = ""
    explained: tuple[str, ...] = ()
    timeline: str = ""
    timeline_notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class MutantsPage:
    """All of it.  ``control``: the unmutated kernel."""

    kernel: str
    command: str
    control: tuple[ShownTrial, ...]
    mutants: tuple[ShownMutant, ...]


def build_mutants_page(data: MutantsPage) -> str:
    """The page's text; without the largest of the timelines, if all together are too large."""
    sizes = {m.line.number: len(m.timeline.encode()) for m in data.mutants if m.timeline}
    return _page(data, what_fits(sizes, len(_page(data, frozenset()).encode())))


def _page(data: MutantsPage, drawn: frozenset[Any]) -> str:
    return render(
        "mutants",
        f"apf mutants on {data.kernel}",
        {
            "score": score([m.line for m in data.mutants]),
            "fine": all(m.line.catch in _FINE for m in data.mutants),
            "command": data.command,
            "green": sum(t.status == "PASS" for t in data.control),
            "not_green": [t for t in data.control if t.status != "PASS"],
            "mutants": list(_mutants(data.mutants, drawn)),
        },
    )


def _mutants(mutants: Sequence[ShownMutant], drawn: frozenset[Any]) -> Iterator[dict[str, Any]]:
    for m in mutants:
        line = m.line
        fits = line.number in drawn
        notes = list(m.timeline_notes)
        if m.timeline and not fits:
            notes.append("the timeline is not drawn here, so that the page stays small: timeline.svg of its evidence")
        yield {
            "anchor": f"m{line.number}",
            "number": line.number,
            "name": line.name,
            "about": line.about,
            "imitates": line.imitates,
            "fate": line.catch,
            "css": _FATES.get(line.catch, "dim"),
            "green": line.catch in _FINE,
            "open": line.catch not in _FINE,
            "caught_by": line.caught_by,
            "kinds": line.kinds,
            "notes": [*filter(None, [line.note]), *([f"by one kind alone: {line.alone}"] if line.kinds == 1 else [])],
            "trials": m.trials,
            "caught_under": m.caught_under,
            "explained": "\n".join(m.explained),
            "svg": Markup(m.timeline) if fits else "",
            "timeline_notes": notes,
            "repeat": m.repeat,
        }
