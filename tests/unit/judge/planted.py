# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of a kernel, planted into a sound capture: its trace and counters say what such a kernel's would."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from tests.unit.judge.golden import Files, edit_trace

_TIME = re.compile(r"(\s)(\d+\.\d{6}):")


def time_of(line: str) -> float:
    """When the event of this line was, in seconds."""
    match = _TIME.search(line)
    assert match is not None, line
    return float(match[2])


def at(line: str, time: float, cpu: str = "") -> str:
    """The line at another time, and on that CPU ("[001]")."""
    moved = _TIME.sub(lambda m: f"{m[1]}{time:.6f}:", line, count=1)
    return re.sub(r"\[\d+\]", cpu, moved, count=1) if cpu else moved


def spread(lines: Sequence[str], after: str, before: str) -> list[str]:
    """The lines at even distances between two others."""
    start, end = time_of(after), time_of(before)
    step = (end - start) / (len(lines) + 1)
    return [at(line, start + step * n) for n, line in enumerate(lines, 1)]


def of_thread(lines: Sequence[str], tid: int, text: str = "", start: int = 0, stop: int | None = None) -> list[int]:
    """Where the lines of a thread are that have this text."""
    end = len(lines) if stop is None else stop
    return [n for n in range(start, end) if f"-{tid} " in lines[n] and text in lines[n]]


def faults_again(files: Files, tid: int, ready: int) -> Files | None:
    """The mapping before the ready event of this line (from 0) was not made, so that the guest faults once more on its
    page, just before the thread's next page fault.  None: there is no such place."""
    lines = files["trace/events.txt"].decode().splitlines()
    gva = re.search(r"gva (0x[0-9a-f]+)", lines[ready])
    assert gva is not None
    page = f"{int(gva[1], 16):x}"
    fault = of_thread(lines, tid, "kvm_page_fault: ", stop=ready)
    fault = [n for n in fault if re.search(rf"address (0x)?0*{page}\b", lines[n])]
    later = of_thread(lines, tid, "reason npf", start=ready)
    if not fault or not later:
        return None
    leave = of_thread(lines, tid, "kvm_exit", stop=fault[-1])[-1]
    enter = of_thread(lines, tid, "kvm_entry", start=fault[-1])[0]
    cpu = re.search(r"\[\d+\]", lines[later[0]])
    assert cpu is not None
    new = [at(lines[n], 0, cpu[0]) for n in (leave, fault[-1], enter)]
    before = later[0]
    planted = [*lines[:before], *spread(new, lines[before - 1], lines[before]), *lines[before:]]
    raw = json.loads(files["counters/after.json"])
    raw["kvm"]["pf_taken"] += 1
    return {**edit_trace(files, lambda _: planted), "counters/after.json": json.dumps(raw).encode()}


def enters_before(files: Files, tid: int, ready: int) -> Files:
    """The thread goes into the guest and out of it twice before the ready event of this line (from 0)."""
    lines = files["trace/events.txt"].decode().splitlines()
    enter = of_thread(lines, tid, "kvm_entry", stop=ready)[-1]
    leave = of_thread(lines, tid, "reason ", stop=ready)[-1]
    cpu = re.search(r"\[\d+\]", lines[ready])
    assert cpu is not None
    new = spread([at(lines[n], 0, cpu[0]) for n in (enter, leave, enter, leave)], lines[ready - 1], lines[ready])
    return edit_trace(files, lambda _: [*lines[:ready], *new, *lines[ready:]])


def injects_later(files: Files, tid: int, interrupt: int) -> Files:
    """The interrupt of this line (from 0) is injected behind the thread's next page fault."""
    lines = files["trace/events.txt"].decode().splitlines()
    fault = of_thread(lines, tid, "kvm_page_fault: ", start=interrupt)[0]
    late = at(lines[interrupt], (time_of(lines[fault]) + time_of(lines[fault + 1])) / 2)
    return edit_trace(
        files, lambda _: [*lines[:interrupt], *lines[interrupt + 1 : fault + 1], late, *lines[fault + 1 :]]
    )
