# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs on a host: performs a plan by an agent that is killed (SIGKILL), with its parent, around the N-th change that it
notes or takes back; then reserves the host as the next run would.  Each line of input is such an order, each line of
output what came of it.  Each agent is a fork of this process: what Python loads on an emulated host is loaded once.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from harness.agent.__main__ import main
from harness.agent.host import undo


def die() -> None:
    """The process that performs plans, and the one that looks after it."""
    for pid in (os.getppid(), os.getpid()):
        os.kill(pid, signal.SIGKILL)


def arm(number: int, when: str, told: int) -> None:
    """From here on, each change of this process and its forks is a line on ``told``; the ``number``-th kills it."""
    counts = {"noted": 0, "undone": 0}
    noted, append = undo.Journal.change, undo._append

    def is_due(which: str, what: object) -> bool:
        counts[which] += 1
        os.write(told, f"{which} {what}\n".encode())
        return counts[which] == number

    def change(self: undo.Journal, kind: str, **args: str | int) -> int:
        due = is_due("noted", kind)
        if due and when == "before":
            die()
        result = noted(self, kind, **args)
        if due and when == "noted":
            die()
        return result

    def appended(path: str, record: dict[str, object]) -> None:
        if "undone" in record and is_due("undone", record["undone"]) and when == "undone":
            die()
        append(path, record)

    undo.Journal.change = change  # type: ignore[method-assign]
    undo._append = appended


def forked(act: Callable[[], int], source: int, target: int) -> int:
    """The pid of a process that does it between these descriptors."""
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 70
        try:
            os.setsid()
            os.dup2(source, 0)
            os.dup2(target, 1)
            code = act()
            sys.stdout.flush()
        finally:
            os._exit(code)
    return pid


def perform(request: bytes, number: int, when: str) -> dict[str, Any]:
    """What the agent noted and took back, until it was killed or had served the request."""
    ours_in, theirs_in = os.pipe()
    ours_out, theirs_out = os.pipe()
    heard, told = os.pipe()

    def agent() -> int:
        for fd in (theirs_in, ours_out, heard):
            os.close(fd)
        arm(number, when, told)
        return main(["serve"])

    pid = forked(agent, ours_in, theirs_out)
    for fd in (ours_in, theirs_out, told):
        os.close(fd)
    os.write(theirs_in, request)
    served = False
    with open(ours_out) as lines:
        for line in lines:
            if '"served"' in line:
                served = True
                break
        os.close(theirs_in)
    _, status = os.waitpid(pid, 0)
    with open(heard) as steps:
        seen = steps.read().split("\n")[:-1]
    return {"steps": seen, "killed": os.WIFSIGNALED(status), "served": served}


def next_run() -> list[dict[str, Any]]:
    """What the next run's reservation says."""
    ours, theirs = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    pid = forked(lambda: main(["reserve", "--name", "next"]), nothing, theirs)
    os.close(theirs)
    os.close(nothing)
    with open(ours) as lines:
        told = [json.loads(line) for line in lines]
    os.waitpid(pid, 0)
    return told


def serve(look: Callable[[], dict[str, str]]) -> None:
    """Until the input ends."""
    for line in sys.stdin:
        order = json.loads(line)
        os.makedirs(order["run"] + "/scope", exist_ok=True)
        answer = perform(order["request"].encode() + b"\n", order["number"], order["when"])
        answer["next"] = next_run() if order["reserve"] else []
        print(json.dumps({**answer, "look": look()}), flush=True)
