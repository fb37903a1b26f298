# SPDX-License-Identifier: GPL-2.0-or-later
"""What is drawn of one capture, beside its verdict:

timeline.svg          the timeline for the run's page
timeline.pftrace.gz   the same for Perfetto's user interface
latencies.json        how long its asynchronous page faults took
drawings-failed.txt   in place of these: why there are none
"""

from __future__ import annotations

import contextlib
import gzip
import json
import traceback
from pathlib import Path

from harness.judge.verdict import JudgedCapture
from harness.report.latency import Latency, latencies
from harness.report.timeline.build_timeline import build_timeline
from harness.report.timeline.perfetto_trace import perfetto_trace
from harness.report.timeline.svg import svg
from harness.run.whole_file import write_whole

SVG, PERFETTO, LATENCIES, FAILED = "timeline.svg", "timeline.pftrace.gz", "latencies.json", "drawings-failed.txt"
_GREEN, _OTHER = (8, 1), (60, 4)
"""(most, fine) of svg(): a page has hundreds of green timelines and few others."""


def write_drawings(folder: Path, judged: JudgedCapture) -> None:
    """Draw what the evidence allows; never raises for what it holds, nor for a disk that is full: a picture must not
    cost a verdict."""
    try:
        for name in (SVG, PERFETTO, LATENCIES, FAILED):
            (folder / name).unlink(missing_ok=True)
        _draw(folder, judged)
    except Exception:  # noqa: BLE001 - our own mistake, which the page tells
        with contextlib.suppress(OSError):
            write_whole(folder / FAILED, traceback.format_exc())


def _draw(folder: Path, judged: JudgedCapture) -> None:
    timeline = build_timeline(judged)
    if timeline is None or judged.evidence is None:
        return
    most, fine = _GREEN if judged.verdict.status.as_predicted else _OTHER
    write_whole(folder / SVG, svg(timeline, most=most, fine=fine))
    whole = build_timeline(judged, most_rows=1 << 20)
    assert whole is not None
    write_whole(folder / PERFETTO, gzip.compress(perfetto_trace(whole), mtime=0))
    found = {kind.name: ns for kind, ns in latencies(judged.evidence).items()}
    write_whole(folder / LATENCIES, json.dumps(found) + "\n")


def read_latencies(folder: Path) -> dict[Latency, list[int]]:
    """latencies.json; empty where there is none."""
    file = folder / LATENCIES
    if not file.is_file():
        return {}
    raw = json.loads(file.read_text())
    return {kind: [int(n) for n in raw.get(kind.name, ())] for kind in Latency}
