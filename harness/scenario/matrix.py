# SPDX-License-Identifier: GPL-2.0-or-later
"""[matrix]: one file, several scenarios with stable ids.

    [matrix]
    "swap.page_cluster" = [1, 2, 3]

gives S24/page_cluster=1, S24/page_cluster=2, ...: all combinations, in the order written.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from typing import Any

from harness.errors import ScenarioError
from harness.scenario.bounds import MAX_DEPTH, MAX_NAME


def expand(name: str, raw: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The table without [matrix], with its own id, for each combination.

    :raise ScenarioError: an axis is no list, is empty, or its key path leads nowhere.
    """
    base = {k: v for k, v in raw.items() if k != "matrix"}
    axes = raw.get("matrix")
    if axes is None:
        yield base
        return
    if not isinstance(axes, dict) or not axes:
        raise ScenarioError(f"{name}: $.matrix: expected a table of key path = [values]")
    for path, values in axes.items():
        if not isinstance(values, list) or not values:
            raise ScenarioError(f"{name}: $.matrix.{path[:MAX_NAME]!r}: expected a list of values")
        if path.count(".") >= MAX_DEPTH:
            raise ScenarioError(f"{name}: $.matrix.{path[:MAX_NAME]!r}: no key is nested so deeply")
    for combination in itertools.product(*axes.values()):
        table = copy.deepcopy(base)
        labels = []
        for path, value in zip(axes, combination, strict=True):
            _put(name, table, path, value)
            labels.append(f"{path.split('.')[-1]}={str(value)[:MAX_NAME]}")
        table["id"] = f"{base.get('id', '?')}/{','.join(labels)}"
        yield table


def _put(name: str, table: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    where: Any = table
    for key in parents:
        if isinstance(where, list):
            if not key.isdecimal() or len(key) > 6 or int(key) >= len(where):
                raise ScenarioError(f"{name}: $.matrix.{path!r}: there is no element {key!r}")
            where = where[int(key)]
        else:
            where = where.setdefault(key, {})
        if not isinstance(where, dict | list):
            raise ScenarioError(f"{name}: $.matrix.{path!r}: {key!r} is not a table")
    if isinstance(where, list):
        raise ScenarioError(f"{name}: $.matrix.{path!r}: {last!r} is not a key of a table")
    where[last] = value
