# SPDX-License-Identifier: GPL-2.0-or-later
"""A block device: the kernel's nbd client asks, and the server's memory is the device."""

from __future__ import annotations

import mmap
import select
import socket
import time
from collections.abc import Callable, Collection

from harness.agent.gate import wire
from harness.agent.gate.keeper import Answer, Keeper
from harness.agent.gate.source import PageSource
from harness.agent.gate.wire import Command


class Disk(PageSource):
    """``requests``: our end of the nbd socket; ``size`` in bytes.  Over when the kernel disconnects."""

    def __init__(self, requests: socket.socket, size: int) -> None:
        self._requests = requests
        self._content = memoryview(mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS))
        self._head = memoryview(bytearray(wire.REQUEST_BYTES))
        self._written: dict[int, None] = {}  # offsets of pages, the one that was written last at the end

    def fileno(self) -> int:
        return self._requests.fileno()

    def take(self, keeper: Keeper, look: Callable[[], None]) -> bool:
        while self._take_request(keeper, look):
            if not select.select([self._requests], [], [], 0)[0]:
                return True
        return False

    def _take_request(self, keeper: Keeper, look: Callable[[], None]) -> bool:
        """One request; False when the connection is over."""
        if not self._fill(self._head):
            return False
        now = time.monotonic()
        request = wire.decode_request(bytes(self._head))
        look()  # the bio behind the request was traced before it was sent
        match request.command:
            case Command.READ:
                keeper.request(request.handle, request.offset, request.length, now)
            case Command.WRITE:
                if not self._fill(self._content[request.offset : request.offset + request.length]):
                    return False
                for offset in range(request.offset, request.offset + request.length, mmap.PAGESIZE):
                    self._written.pop(offset, None)
                    self._written[offset] = None
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

    def find(self, words: Collection[int]) -> dict[int, int]:
        wanted, found = frozenset(words), dict[int, int]()
        for offset in self._written:  # of a page that was written twice the second place is the one that counts
            word = int.from_bytes(self._content[offset : offset + 8], "little")
            if word in wanted:
                found[word] = offset
        return found

    def catch_up(self, keeper: Keeper) -> None:
        """A request comes after its bio was traced."""

    def answer(self, answer: Answer) -> None:
        self._requests.sendall(wire.encode_reply(answer.handle, answer.error))
        if not answer.error:
            self._requests.sendall(self._content[answer.offset : answer.offset + answer.length])
