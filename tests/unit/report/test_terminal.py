# SPDX-License-Identifier: GPL-2.0-or-later
"""The line that updates itself, the plain log, and the table."""

from __future__ import annotations

import io
import os
import pty
import re

import pytest

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


def seen(stream: io.StringIO) -> list[str]:
    """What a terminal shows at the end: the escape sequences that rich uses, carried out."""
    lines, row = [""], 0
    for part in re.findall(r"\x1b\[[0-9;?]*[A-Za-z]|\r|\n|[^\x1b\r\n]+", stream.getvalue()):
        if part == "\n":
            row += 1
            lines += [""] * (row + 1 - len(lines))
        elif part == "\x1b[2K":
            lines[row] = ""
        elif up := re.fullmatch(r"\x1b\[(\d+)A", part):
            row -= int(up[1])
        elif part[0] not in "\r\x1b":
            lines[row] += part
    return [line.rstrip() for line in lines]


def test_a_terminal_has_a_line_of_work_that_goes_away() -> None:
    stream = Terminal()
    screen = Screen(stream, environ={"TERM": "xterm"})
    screen.scope("S1 on k")
    screen.progress("boot")
    assert "S1 on k: boot" in seen(stream)
    screen.progress("swap")
    screen.scope("S2 on l")
    screen.progress("building", 0.5)
    shown = seen(stream)
    assert "S1 on k: swap" in shown and "S1 on k: boot" not in shown
    assert any("S2 on l: building" in line and "50 %" in line for line in shown)
    screen.line("a line that stays")
    screen.verdict(row_of(Key("S1", "k"), Status.PASS, seconds=1.0))
    assert "S1 on k: swap" not in seen(stream)
    screen.clear()
    assert [line for line in seen(stream) if line] == ["a line that stays", "PASS         S1 on k (1.0 s)"]


def test_a_long_line_of_work_does_not_wrap() -> None:
    stream = Terminal()
    Screen(stream, environ={"TERM": "xterm"}).progress("x" * 1000)
    assert max(map(len, seen(stream))) < 300


@pytest.mark.parametrize("environ", [{"TERM": "dumb"}, {"TERM": "xterm", "NO_COLOR": "1"}])
def test_a_terminal_that_shall_not_be_drawn_on_gets_a_log(environ: dict[str, str]) -> None:
    stream = Terminal()
    screen = Screen(stream, environ=environ)
    screen.progress("x", 0.5)
    screen.verdict(row_of(Key("S1", "k"), Status.FAIL, "because"))
    screen.table(RunResult("r", "", (Key("S1", "k"),), (row_of(Key("S1", "k"), Status.FAIL, "because"),)))
    assert "\x1b" not in stream.getvalue() and "x 50 %" in stream.getvalue()


def test_texts_are_printed_as_they_are() -> None:
    """No markup, no emoji: a kernel's words may look like either."""
    stream = Terminal()
    screen = Screen(stream, environ={"TERM": "xterm"})
    screen.line("[bold]kvm[/bold] :warning: [ 12.0]")
    assert seen(stream)[0] == "[bold]kvm[/bold] :warning: [ 12.0]"


def test_the_table_on_a_terminal_has_the_same_cells() -> None:
    key = Key("S23", "debian-6.1")
    result = RunResult("r", "", (key,), (row_of(key, Status.PASS, columns=(cell("sync", 24, 24),)),))
    stream = Terminal()
    Screen(stream, environ={"TERM": "xterm", "COLUMNS": "120"}).table(result)
    row = next(line for line in seen(stream) if "S23" in line)
    assert row.split() == ["S23", "debian-6.1", "PASS", "-", "-", "24", "-", "0.0"]


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


def test_a_terminal_that_has_gone_ends_nothing() -> None:
    """Its other end is closed: each write is an error (EIO)."""
    master, slave = pty.openpty()
    with open(slave, "w") as stream:
        screen = Screen(stream, environ={"TERM": "xterm"})
        assert screen.is_terminal
        screen.progress("working")
        os.close(master)
        screen.line("a line")
        screen.progress("more work")
        screen.verdict(row_of(Key("S1", "k"), Status.PASS))
        screen.table(RunResult("r", "apf run", (), ()))
        screen.clear()
