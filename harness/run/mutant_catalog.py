# SPDX-License-Identifier: GPL-2.0-or-later
"""The mutants that were written by hand (kernels/patches/mutants/MUTANTS.toml)."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.artifacts import layout
from harness.artifacts.catalog import CatalogKernel, SourceKind
from harness.artifacts.kernels.built_kernel import BuiltKernel
from harness.errors import CatalogError, UsageError
from harness.run.mutant_trials import KERNEL, PARAMETER, Mutant

CATALOG = layout.KERNELS / "patches/mutants/MUTANTS.toml"


def load_mutants(path: Path = CATALOG) -> tuple[Mutant, ...]:
    """:raise CatalogError: the file cannot be read, or an entry lacks something."""
    try:
        raw: dict[str, Any] = tomllib.loads(path.read_text())
        return tuple(
            Mutant(
                name,
                e["number"],
                e["about"],
                e["imitates"],
                tuple(e["scenarios"]),
                tuple(e["rules"]),
                _hangs(e.get("hangs", False)),
            )
            for name, e in raw.items()
        )
    except (OSError, tomllib.TOMLDecodeError, KeyError, TypeError) as exc:
        raise CatalogError(f"{path}: {exc!r}") from exc


def _hangs(told: bool | list[str]) -> bool | frozenset[str]:
    return told if isinstance(told, bool) else frozenset(told)


def choose(mutants: Sequence[Mutant], names: Sequence[str]) -> tuple[Mutant, ...]:
    """Those named by name, number, or the function that they change; all without names.

    :raise UsageError: a name that none has.
    """
    wrong = [n for n in names if not any(_is_called(m, n) for m in mutants)]
    if wrong:
        known = dict.fromkeys(m.name if m.name.isidentifier() else m.imitates for m in mutants)
        raise UsageError(f"no mutant is called {', '.join(wrong)}", hint=f"known are {', '.join(known)}")
    return tuple(m for m in mutants if not names or any(_is_called(m, n) for n in names))


def _is_called(mutant: Mutant, name: str) -> bool:
    return name in (mutant.name, str(mutant.number), mutant.imitates)


def require_mutants(kernel: CatalogKernel, built: BuiltKernel | None = None) -> None:
    """Refuse a kernel of which it is known that it has no mistakes in it: nobody could notice any.

    :param built: it, where it is there already: its symbols tell.
    :raise UsageError: it has none.
    """
    symbols = built.bzimage.parent / "System.map" if built is not None else None
    lacks = symbols is not None and symbols.is_file() and " apf_mutant\n" not in symbols.read_text()
    if lacks or kernel.source is SourceKind.PACKAGE:
        raise UsageError(
            f"{kernel.id} has no mistakes in it: it lacks the parameter {PARAMETER}",
            hint=f"--kernel {KERNEL}, or another kernel with mutants (`apf kernels`)",
        )
