# SPDX-License-Identifier: GPL-2.0-or-later
"""The process behind a gated source of pages: what asks for them, the agent's words and the trace, in one poll loop.

It lives until its source is over; when the agent's end of the control socket is gone it lets everything pass, so that
nobody stays asleep.
"""

from __future__ import annotations

import dataclasses
import json
import os
import select
import socket
import time
from typing import Any

from harness.agent.gate import watch
from harness.agent.gate.keeper import Keeper, Orders
from harness.agent.gate.source import PageSource
from harness.contract.gate import parse_rule
from harness.contract.words import ReadOrder

_LOOK_MS = 5
"""How often the trace is looked at while reads are held: poll(2) on trace_pipe wakes us, but late on a busy host."""
_CHUNK = 1 << 16


class Server:
    """``control``: JSON lines, each answered by one."""

    def __init__(self, source: PageSource, control: socket.socket) -> None:
        self._source = source
        self._control = control
        self._keeper = Keeper()
        self._pipe = -1
        self._trace = b""
        self._words = b""

    def run(self) -> None:
        """Until the source is over."""
        poll = select.poll()
        poll.register(self._source.fileno(), select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(_LOOK_MS if self._keeper.held else None)}
            if self._source.fileno() in ready and not self._source.take(self._keeper, self._look):
                return
            self._look()
            if self._control.fileno() in ready and not self._take_words():
                if self._source.ends_with_agent:
                    return
                poll.unregister(self._control)
                self._keeper.open()
            self._answer()

    def _answer(self) -> None:
        self._source.catch_up(self._keeper)
        for answer in self._keeper.answers(time.monotonic()):
            self._source.answer(answer)
            self._keeper.answered(answer, time.monotonic())

    # --- the trace
    def _look(self) -> None:
        """See all that happened before now.  Not until nothing is left: a busy guest makes lines while we read."""
        began, newest = time.monotonic(), 0.0
        while self._pipe >= 0 and newest < began:
            try:
                chunk = os.read(self._pipe, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                return
            *lines, self._trace = (self._trace + chunk).split(b"\n")
            for line in lines:
                for sight in watch.read_line(line.decode(errors="replace")):
                    newest = max(newest, sight.at)
                    self._keeper.see(sight)

    # --- the agent
    def _take_words(self) -> bool:
        """What the agent says; False when it is gone, also before it has heard an answer."""
        try:
            chunk = self._control.recv(_CHUNK)
        except ConnectionError:
            chunk = b""
        if not chunk:
            return False
        *lines, self._words = (self._words + chunk).split(b"\n")
        for line in lines:
            answer = self._do(json.loads(line))
            try:
                self._control.sendall(json.dumps(answer).encode() + b"\n")
            except OSError:
                return False
        return True

    def _do(self, said: dict[str, Any]) -> dict[str, Any]:
        keeper = self._keeper
        match said["do"]:
            case "arm":
                self._watch(said["trace"])
                keeper.arm(_orders(said))
            case "open":
                keeper.open()
                self._watch("")
            case "freeze" | "thaw":
                keeper.freeze(said["do"] == "freeze")
            case "thread":
                keeper.new_thread(said["vcpu"], said["tid"])
            case "reset":
                keeper.reset(said["at"])
            case "loaded":
                keeper.loaded()
            case "saving":
                keeper.save(said["on"])
            case "release":
                keeper.let_go()
            case "seen":
                return {"settled": keeper.settled, "halted": keeper.halted, "held": len(keeper.held)}
            case "find":
                return {"found": list(self._source.find(said["words"]).items())}
            case "log":
                return dataclasses.asdict(keeper.evidence)
            case word:
                return {"error": f"the gate knows no word {word!r}"}
        return {"held": len(keeper.held)}

    def _watch(self, path: str) -> None:
        """Follow this trace_pipe; "": none."""
        if self._pipe >= 0:
            os.close(self._pipe)
        self._pipe = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC) if path else -1
        self._trace = b""


def _orders(said: dict[str, Any]) -> Orders:
    return Orders(
        rule=parse_rule(said["rule"]),
        order=ReadOrder(said["order"]),
        tids=tuple(said["tids"]),
        pages={int(sector): page for sector, page in said["pages"].items()},
        errors=frozenset(said["errors"]),
        after_s=said["after_s"],
        ram_hva=said["ram_hva"],
        apic_ids=tuple(said["apic_ids"]),
        moved=said["moved"],
    )
