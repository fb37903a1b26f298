# SPDX-License-Identifier: GPL-2.0-or-later
"""Measured times of kernels: a histogram each, and whether two kernels differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations

from markupsafe import Markup

from harness.report.latency import Latencies, Latency, histogram, joined, mann_whitney, spread

LOW_NS, HIGH_NS, _BINS = 10_000, 1_000_000_000, 40
_BAR, _HEIGHT = 6, 34
SIGNIFICANT = 0.01
"""After Holm's correction for the kinds of times that are compared."""


def time_text(ns: float) -> str:
    """Three digits and a unit."""
    for unit, size in (("s", 1e9), ("ms", 1e6), ("\N{MICRO SIGN}s", 1e3)):
        if ns >= size:
            return f"{ns / size:.3g} {unit}"
    return f"{ns:.0f} ns"


def performance_rows(samples: Mapping[str, Sequence[Latencies]]) -> list[dict[str, object]]:
    """A row for each kind of time and kernel, kernels beside each other."""
    by_kernel = {kernel: joined(parts) for kernel, parts in samples.items()}
    rows: list[dict[str, object]] = []
    for kind in Latency:
        for kernel, found in by_kernel.items():
            s = spread(found[kind])
            if s is not None:
                rows.append({
                    "what": kind.value, "kernel": kernel, "count": s.count, "median": time_text(s.median),
                    "p90": time_text(s.p90), "p99": time_text(s.p99), "largest": time_text(s.largest),
                    "histogram": histogram_svg(found[kind]),
                })  # fmt: skip
    return rows


def histogram_svg(values: Sequence[int]) -> Markup:
    """Bars over a logarithmic axis from 10 us to 1 s, a line at each power of ten."""
    counts = histogram(values, LOW_NS, HIGH_NS, _BINS)
    top = max(counts) or 1
    bars = "".join(
        f'<rect class="a" x="{n * _BAR}" y="{_HEIGHT - round(c / top * _HEIGHT, 1)}" width="{_BAR - 1}"'
        f' height="{round(c / top * _HEIGHT, 1)}"><title>{c}</title></rect>'
        for n, c in enumerate(counts)
        if c
    )
    lines = "".join(f'<path class="base" d="M{n * _BINS * _BAR // 5} 0V{_HEIGHT}"/>' for n in range(6))
    width = _BINS * _BAR
    return Markup(f'<svg class="hist" width="{width}" height="{_HEIGHT}" role="img">{lines}{bars}</svg>')


def significance(samples: Mapping[str, Sequence[Latencies]]) -> list[str]:
    """For each pair of kernels and kind of time a sentence: which is slower, by how much, and how sure that is."""
    lines: list[str] = []
    for a, b in combinations(samples, 2):
        left, right = joined(samples[a]), joined(samples[b])
        tested = [(kind, d) for kind in Latency if (d := mann_whitney(left[kind], right[kind])) is not None]
        worst = 0.0
        for rank, (kind, d) in enumerate(sorted(tested, key=lambda pair: pair[1].p)):
            worst = max(worst, min(1.0, d.p * (len(tested) - rank)))  # Holm
            one, two = spread(left[kind]), spread(right[kind])
            assert one is not None and two is not None
            medians = f"{time_text(one.median)} on {a}, {time_text(two.median)} on {b}"
            if worst >= SIGNIFICANT:
                lines.append(f"{kind.value}: no significant difference (medians {medians}; p = {worst:.2g}).")
                continue
            slower = b if d.later > 0.5 else a
            share = d.later if d.later > 0.5 else 1 - d.later
            lines.append(
                f"{kind.value}: {slower} is slower (medians {medians}; a time of it is the longer one with probability "
                f"{share:.2f}; p = {worst:.2g}, Mann-Whitney with Holm's correction)."
            )
        few = [kind.value for kind in Latency if kind not in dict(tested)]
        if few:
            lines.append(f"{a} against {b}: too few times to compare of {', '.join(few)}.")
    return lines
