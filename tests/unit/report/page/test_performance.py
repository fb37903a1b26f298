# SPDX-License-Identifier: GPL-2.0-or-later
"""Kernels' times beside each other: a slower one is named, noise is not."""

from __future__ import annotations

import pytest

from harness.report.latency import Latency
from harness.report.page.performance import performance_rows, significance, time_text

FAST = [100_000 + 7 * n % 5000 for n in range(200)]


def test_a_kernel_that_slows_tokens_down_is_named() -> None:
    samples = {"old": [{Latency.TOKEN: FAST}], "new": [{Latency.TOKEN: [t * 2 for t in FAST]}]}
    (line, few) = significance(samples)
    assert line.startswith("fault to token: new is slower")
    assert "too few times to compare of completion to ready" in few


def test_the_same_times_are_no_difference() -> None:
    samples = {"old": [{Latency.TOKEN: FAST}], "new": [{Latency.TOKEN: FAST[::-1]}]}
    assert "no significant difference" in significance(samples)[0]


def test_several_kinds_are_corrected_for() -> None:
    """Holm: p = 0.006 alone is below 0.01; as the smallest of three that are tested it is not."""
    a, b = list(range(20)), [n + 6 for n in range(20)]
    alone = significance({"a": [{Latency.TOKEN: a}], "b": [{Latency.TOKEN: b}]})[0]
    three = dict.fromkeys((Latency.READY, Latency.RESUMED), a)
    among = significance({"a": [{Latency.TOKEN: a, **three}], "b": [{Latency.TOKEN: b, **three}]})
    assert "b is slower" in alone
    assert not any("slower" in line for line in among)


def test_a_row_for_each_kernel_of_what_was_seen() -> None:
    rows = performance_rows({"a": [{Latency.TOKEN: FAST}, {Latency.TOKEN: FAST}], "b": [{Latency.READY: [5]}]})
    assert [(r["what"], r["kernel"], r["count"]) for r in rows] == [
        ("fault to token", "a", 400), ("completion to ready", "b", 1),
    ]  # fmt: skip
    assert "<rect" in str(rows[0]["histogram"])


@pytest.mark.parametrize(("ns", "text"), [(12, "12 ns"), (1500, "1.5 µs"), (2_500_000, "2.5 ms"), (3e9, "3 s")])
def test_times_have_a_unit(ns: float, text: str) -> None:
    assert time_text(ns) == text
