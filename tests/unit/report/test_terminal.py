# SPDX-License-Identifier: GPL-2.0-or-later
"""The line that updates itself, the plain log, and the table."""

from __future__ import annotations

import io

from harness.judge.verdict_types import TotalRow
from harness.model.outcomes import Count
from harness.report.terminal import Screen, table
from harness.results import Key, RunResult
from harness.status import Status
from tests.unit.rows import row_of


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_log_says_what_is_new_and_every_ten_seconds_that_it_goes_on() -> None:
    stream, clock = io.StringIO(), Clock()
    screen = Screen(stream, clock=clock)
    for second in range(25):
        clock.now = float(second)
        screen.progress(f"boot: {second} s")
    screen.progress("swap out")
    assert stream.getvalue().splitlines() == ["boot: 0 s", "boot: 10 s", "boot: 20 s", "swap out"]


def test_a_log_has_no_escape_sequences() -> None:
    stream = io.StringIO()
    screen = Screen(stream)
    screen.progress("x", 0.5)
    screen.verdict(row_of(Key("S1", "k"), Status.FAIL, "because\nof this"))
    assert "\x1b" not in stream.getvalue()
    assert "x 50 %" in stream.getvalue()
    assert "FAIL" in stream.getvalue()
    assert "because" in stream.getvalue()


def test_a_terminal_has_one_line_that_goes_away() -> None:
    stream = Terminal()
    screen = Screen(stream)
    screen.scope("S1 on k")
    screen.progress("boot")
    screen.progress("swap")
    screen.line("done")
    assert stream.getvalue() == "\r\x1b[2KS1 on k: boot\r\x1b[2KS1 on k: swap\r\x1b[2Kdone\n"


def test_a_long_progress_line_does_not_wrap() -> None:
    stream = Terminal()
    Screen(stream).progress("x" * 1000)
    assert len(stream.getvalue()) < 300


def cell(name: str, seen: int, predicted: int) -> TotalRow:
    return TotalRow(name, Count.exactly(predicted), seen, seen == predicted)


def test_table() -> None:
    keys = (Key("S23", "debian-6.1"), Key("S60", "debian-6.1"), Key("S61", "debian-6.1", 2), Key("S62", "debian-6.1"))
    rows = (
        row_of(keys[0], Status.PASS, columns=(cell("tokens", 0, 0), cell("sync", 24, 24)), seconds=9.87),
        row_of(keys[1], Status.FAIL, "D39: late\nsecond line", columns=(cell("tokens", 11, 12),)),
        row_of(keys[2], Status.UNSUPPORTED, "no dm-delay"),
    )
    lines = table(RunResult("r", "", keys, rows, seconds=12.3))
    assert lines[0].split() == ["scenario", "kernel", "verdict", "tokens", "halts", "sync", "mapped", "seconds"]
    assert lines[2].split() == ["S23", "debian-6.1", "PASS", "0", "-", "24", "-", "9.9"]
    assert lines[3].split()[3] == "11/12"
    assert lines[4].split()[:3] == ["S61", "#2", "debian-6.1"]
    assert lines[5].split()[2] == "missing"
    text = "\n".join(lines)
    assert "S60 on debian-6.1: FAIL: D39: late\n    second line" in text
    assert "1 PASS, 1 FAIL, 1 UNSUPPORTED, 1 of 4 without a verdict in 12 s" in text
