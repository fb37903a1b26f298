# SPDX-License-Identifier: GPL-2.0-or-later
"""Logs that were emptied, cut, or are another run's."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from harness.contract.plan import Guest, GuestKind, Plan
from harness.evidence.decode import decode
from harness.evidence.texts import console_problems, qmp_problems
from tests.unit.judge.golden import load

PROBE = replace(decode(load("S29")).plan, nonce=0xAB)
LINUX: Plan = replace(PROBE, guest=Guest(GuestKind.LINUX, workload="touch"))
SAID = "WORKLOAD touch 6.1.0 1 cpus\nHYP 1\nREADY\nHYP 9\nEND ab\n"
CONSOLE = "".join(f"workload: {line}\r\n" for line in SAID.splitlines())


def test_the_probe_says_its_nonce() -> None:
    assert not list(console_problems(PROBE, "x\napf-probe: ready, nonce 00000000000000ab\r\n", ""))
    for text in ("", "apf-probe: ready, nonce 00000000000000ac\n", "apf-probe: ready, nonce 0000000000"):
        assert list(console_problems(PROBE, text, "")), text


def test_a_linux_guest_says_its_results() -> None:
    assert not list(console_problems(LINUX, CONSOLE, SAID))
    assert not list(console_problems(LINUX, CONSOLE.replace("workload: END ab\r\n", ""), SAID))  # QEMU was ended
    assert not list(console_problems(LINUX, CONSOLE.replace("READY\r\n", "READYgo\r\n\r\n"), SAID))
    assert not list(console_problems(LINUX, CONSOLE.replace("EADY", "E[    1.0] WARNING: CPU: 0\r\nADY"), SAID))
    for text in ("", CONSOLE[: len(CONSOLE) // 2], CONSOLE[len(CONSOLE) // 2 :], CONSOLE.replace("HYP 9", "HYP 8")):
        assert list(console_problems(LINUX, text, SAID)), text


def line(direction: str, **message: object) -> str:
    return json.dumps({"t": 1.0, "dir": direction, "message": message}) + "\n"


QMP = (
    line("in", QMP={}) + line("out", execute="qmp_capabilities") + line("in", **{"return": {}})
    + line("out", execute="cont", id="a") + line("in", event="RESUME") + line("in", **{"return": {}}, id="a")
)  # fmt: skip


@pytest.mark.parametrize("gone", [0, 3, 5])
def test_each_command_was_answered(gone: int) -> None:
    assert not list(qmp_problems(QMP))
    rows = QMP.splitlines(keepends=True)
    assert list(qmp_problems("".join(rows[:gone] + rows[gone + 1 :]))) and list(qmp_problems(""))
