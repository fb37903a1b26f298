# SPDX-License-Identifier: GPL-2.0-or-later
"""kernels/mutate.toml: what of a kernel is mutated, what names a fault there, and which ones nobody can notice."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.artifacts.kernels.mutation_points import Point
from harness.errors import CatalogError


@dataclass(frozen=True, slots=True)
class Targets:
    """What is to be mutated.

    ``functions``: by name, an empty text for the whole function, or a regular expression: of a function that does more,
    only the conditions and statements that match, and what stands inside them.  ``rules``: by function, what names a
    fault of it (Finding.name).  By a regular expression over a point's name: ``points``, what names just that one, in
    place of its function's rules; ``equivalent``, why nobody can notice it; ``out_of_reach``, why no guest here does;
    ``alone``, why only one kind of scenario can.
    """

    files: tuple[str, ...]  # patterns, relative to the tree
    functions: Mapping[str, str]
    rules: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    points: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    equivalent: Mapping[str, str] = field(default_factory=dict)
    out_of_reach: Mapping[str, str] = field(default_factory=dict)
    alone: Mapping[str, str] = field(default_factory=dict)

    def rules_of(self, point: Point) -> tuple[str, ...]:
        """What names this point's fault."""
        own = next((rules for name, rules in self.points.items() if re.fullmatch(name, point.name)), None)
        return self.rules.get(point.function, ()) if own is None else own

    def why_equivalent(self, point: Point, nth: int = 1) -> str:
        """Why nobody can notice this point; empty where somebody should.  ``nth``: of those of the same name."""
        return _first(self.equivalent, point, nth)

    def why_out_of_reach(self, point: Point, nth: int = 1) -> str:
        """Why no guest of the harness can tell; empty where one should.  ``nth``: of those of the same name."""
        return _first(self.out_of_reach, point, nth)

    def why_alone(self, point: Point, nth: int = 1) -> str:
        """Why only one kind of scenario can tell; empty where others should.  ``nth``: of those of the same name."""
        return _first(self.alone, point, nth)


def _first(arguments: Mapping[str, str], point: Point, nth: int) -> str:
    """A pattern fits the name, or the name with its number among those that are called the same: "... #2"."""
    names = (point.name, f"{point.name} #{nth}")
    return next((why for pattern, why in arguments.items() if any(re.fullmatch(pattern, n) for n in names)), "")


def load_targets(path: Path) -> Targets:
    """The list of functions (kernels/mutate.toml).

    :raise CatalogError: the file cannot be read, or has another shape.
    """
    try:
        raw = tomllib.loads(path.read_text())
        return Targets(
            files=tuple(map(str, raw["files"])),
            functions={str(name): re.compile(only).pattern for name, only in raw["functions"].items()},
            rules={name: tuple(map(str, named)) for name, named in raw.get("rules", {}).items()},
            points={re.compile(name).pattern: tuple(map(str, named)) for name, named in raw.get("points", {}).items()},
            equivalent=_arguments(raw, "equivalent"),
            out_of_reach=_arguments(raw, "out-of-reach"),
            alone=_arguments(raw, "alone"),
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, AttributeError, TypeError, re.error) as exc:
        raise CatalogError(f"{path}: {exc!r}") from exc


def _arguments(raw: Mapping[str, Any], table: str) -> dict[str, str]:
    return {re.compile(name).pattern: str(why) for name, why in raw.get(table, {}).items()}
