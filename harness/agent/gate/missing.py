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


class Missing(PageSource):
    """``fd``: of userfaultfd(2), registered; ``ram_hva``: address of guest physical address 0; ``content``: by GPA.

    Over when the agent is gone: no other process holds the descriptor, so its end wakes whoever sleeps.
    """

    ends_with_agent = True

    def __init__(self, fd: int, ram_hva: int, content: Callable[[int], bytes]) -> None:
        self._fd, self._ram_hva, self._content = fd, ram_hva, content

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
        userfault.copy(self._fd, answer.handle, self._content(answer.offset))
