# SPDX-License-Identifier: GPL-2.0-or-later
"""The process behind the gated device: the kernel's requests, the agent's words and the trace, in one poll loop.

Its memory is the device.  It lives until the device is disconnected; when the agent's end of the control socket is
gone it lets every read pass, so that nobody stays asleep on it.
"""

from __future__ import annotations

import dataclasses
import json
import mmap
import os
import select
import socket
import time
from typing import Any

from harness.agent.gate import watch, wire
from harness.agent.gate.keeper import Keeper, Orders
from harness.agent.gate.wire import Command
from harness.contract.gate import parse_rule
from harness.contract.words import ReadOrder

_LOOK_MS = 5
"""How often the trace is looked at while reads are held: poll(2) on trace_pipe wakes us, but late on a busy host."""
_CHUNK = 1 << 16


class Server:
    """``requests``: our end of the nbd socket; ``control``: JSON lines, each answered by one."""

    def __init__(self, requests: socket.socket, control: socket.socket, size: int) -> None:
        self._requests = requests
        self._control = control
        self._content = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._keeper = Keeper()
        self._head = memoryview(bytearray(wire.REQUEST_BYTES))
        self._pipe = -1
        self._trace = b""
        self._words = b""

    def run(self) -> None:
        """Until the kernel disconnects."""
        poll = select.poll()
        poll.register(self._requests, select.POLLIN)
        poll.register(self._control, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll(_LOOK_MS if self._keeper.held else None)}
            if self._requests.fileno() in ready and not self._take_requests():
                return
            self._look()
            if self._control.fileno() in ready and not self._take_words():
                poll.unregister(self._control)
                self._keeper.open()
            self._answer()

    # --- the kernel
    def _take_requests(self) -> bool:
        """All requests that are there; False when the connection is over."""
        while self._take_request():
            if not select.select([self._requests], [], [], 0)[0]:
                return True
        return False

    def _take_request(self) -> bool:
        """One request; False when the connection is over."""
        if not self._fill(self._head):
            return False
        now = time.monotonic()
        request = wire.decode_request(bytes(self._head))
        self._look()  # the bio behind the request was traced before it was sent
        match request.command:
            case Command.READ:
                self._keeper.request(request.handle, request.offset, request.length, now)
            case Command.WRITE:
                if not self._fill(self._content[request.offset : request.offset + request.length]):
                    return False
                self._requests.sendall(wire.encode_reply(request.handle))
            case Command.DISCONNECT:
                return False
            case Command.FLUSH | Command.TRIM:
                self._requests.sendall(wire.encode_reply(request.handle))
        return True

    def _fill(self, view: memoryview) -> bool:
        while len(view):
            count = self._requests.recv_into(view, 0, socket.MSG_WAITALL)
            if not count:
                return False
            view = view[count:]
        return True

    def _answer(self) -> None:
        for answer in self._keeper.answers(time.monotonic()):
            self._requests.sendall(wire.encode_reply(answer.handle, answer.error))
            if not answer.error:
                self._requests.sendall(self._content[answer.offset : answer.offset + answer.length])

    # --- the trace
    def _look(self) -> None:
        while self._pipe >= 0:
            try:
                chunk = os.read(self._pipe, _CHUNK)
            except BlockingIOError:
                return
            if not chunk:
                return
            *lines, self._trace = (self._trace + chunk).split(b"\n")
            for line in lines:
                for sight in watch.read_line(line.decode(errors="replace")):
                    self._keeper.see(sight)

    # --- the agent
    def _take_words(self) -> bool:
        """What the agent says; False when it is gone."""
        try:
            chunk = self._control.recv(_CHUNK)
        except ConnectionError:
            chunk = b""
        if not chunk:
            return False
        *lines, self._words = (self._words + chunk).split(b"\n")
        for line in lines:
            answer = self._do(json.loads(line))
            self._control.sendall(json.dumps(answer).encode() + b"\n")
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
            case "release":
                keeper.let_go()
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
    )
