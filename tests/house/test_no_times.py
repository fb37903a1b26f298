# SPDX-License-Identifier: GPL-2.0-or-later
"""No test is red because a machine is slow: how long something took is asserted by measurements alone (``bench``)."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
_CLOCKS = {"monotonic", "monotonic_ns", "perf_counter", "perf_counter_ns", "process_time", "time"}


def _is_span(node: ast.expr) -> bool:
    """``time.monotonic() - began``"""
    clock = node.left.func if isinstance(node, ast.BinOp) and isinstance(node.left, ast.Call) else None
    return isinstance(clock, ast.Attribute) and isinstance(clock.value, ast.Name) and (
        (clock.value.id, clock.attr in _CLOCKS) == ("time", True)
    )  # fmt: skip


def bounded_spans(text: str) -> Iterator[int]:
    """Lines at which a span of time is said to be less than something, but in a test that is marked ``bench``."""
    tree = ast.parse(text)
    bench = {
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and "bench" in " ".join(map(ast.unparse, node.decorator_list))
        for line in range(node.lineno, (node.end_lineno or 0) + 1)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Assert) and node.lineno not in bench:
            for compared in ast.walk(node.test):
                if isinstance(compared, ast.Compare):
                    sides = [compared.left, *compared.comparators]
                    for left, op, right in zip(sides, compared.ops, sides[1:], strict=False):
                        less = _is_span(left) and isinstance(op, ast.Lt | ast.LtE)
                        if less or (_is_span(right) and isinstance(op, ast.Gt | ast.GtE)):
                            yield node.lineno


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("assert time.monotonic() - began < 10", True),
        ("assert 2 <= time.process_time() - began <= 20", True),
        ("assert 10 > time.monotonic() - began", True),
        ("assert time.monotonic() - began >= 2", False),
        ("assert time.monotonic() < give_up", False),
    ],
)
def test_a_bound_is_found(line: str, found: bool) -> None:
    assert list(bounded_spans(line)) == [1] * found
    assert not list(bounded_spans(f"@pytest.mark.bench\ndef test() -> None:\n    {line}\n"))


def test_no_test_says_how_long_something_takes_at_most() -> None:
    paths = [path for path in TESTS.rglob("test_*.py") if "bench" not in path.parts]
    found = [f"{path.relative_to(TESTS)}:{line}" for path in paths for line in bounded_spans(path.read_text())]
    assert not found, "wait for a state (tests/unit/waiting.py), prove an order or a count, or mark it bench"
