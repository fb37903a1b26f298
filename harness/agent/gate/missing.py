# SPDX-License-Identifier: GPL-2.0-or-later
"""Missing pages of guest RAM: threads that sleep in handle_userfault ask, UFFDIO_COPY answers.

To the keeper each is a read of one page at its guest physical address.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from harness.agent.gate.keeper import Answer, Keeper
from harness.agent.gate.source import PageSource
from harness.agent.host import userfault
from harness.agent.host.kernel_files import PAGE

_AT_ONCE = 512 * PAGE


class Missing(PageSource):
    """``fd``: of userfaultfd(2), registered, ``size`` bytes from ``ram_hva``, the address of guest physical address 0;
    ``content``: by GPA, None: nobody planned the page.  Who comes for such a page is given those behind it, too: QEMU
    reads all of RAM for a snapshot.

    Over when the agent is gone: no other process holds the descriptor, so its end wakes whoever sleeps.
    """

    ends_with_agent = True

    def __init__(self, fd: int, ram_hva: int, size: int, content: Callable[[int], bytes | None]) -> None:
        self._fd, self._ram_hva, self._size, self._content = fd, ram_hva, size, content

    def fileno(self) -> int:
        return self._fd

    def take(self, keeper: Keeper, look: Callable[[], None]) -> bool:
        look()
        self.catch_up(keeper)
        return True

    def catch_up(self, keeper: Keeper) -> None:
        # handle_userfault queues its message before it sleeps: of a thread that is seen to sleep it is here.
        for address in userfault.faults(self._fd):
            keeper.request(address, address - self._ram_hva, PAGE, time.monotonic())

    def answer(self, answer: Answer) -> None:
        content = self._content(answer.offset)
        if content is not None:
            userfault.copy(self._fd, answer.handle, content)
            return
        end = answer.offset + PAGE
        last = min(self._size, answer.offset + _AT_ONCE)
        while end < last and self._content(end) is None:
            end += PAGE
        userfault.zero(self._fd, answer.handle, end - answer.offset)
