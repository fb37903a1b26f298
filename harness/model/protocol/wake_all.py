# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether a write of EN has queued a wake-all (D20): virt/kvm/async_pf.c:kvm_async_pf_wakeup_all does if the list of
finished works is empty, and when a worker puts its work there no trace tells."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum


class WakeAll(IntEnum):
    """Whether a kvm_async_pf_wakeup_all work is queued."""

    NO = 0
    PERHAPS = 1  # a work may have ended just before EN was written: then none was queued
    SURELY = 2


@dataclass(slots=True)
class Unended:
    """Works that were live when EN was written, and may have been on the list of finished ones."""

    tokens: set[int] = field(default_factory=set)
    t_ns: int = 0  # of the write, which is traced after its effect

    def begin(self, tokens: Iterable[int], t_ns: int) -> None:
        self.tokens, self.t_ns = set(tokens), t_ns

    def none_was(self, token: int, returned_t: int) -> bool:
        """A work ended whose worker came back from its page at ``returned_t`` (ns): it was not on the list if that was
        after the write.  Whether that was the last doubt."""
        if token not in self.tokens or returned_t <= self.t_ns:
            return False
        self.tokens.discard(token)
        return not self.tokens
