# SPDX-License-Identifier: GPL-2.0-or-later
"""Marks of a recording while they grow, and what an L2 adds to them."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from harness.model.events import Event, Kind
from harness.model.simulation.recorded import FaultCall, RecordedEvent


@dataclass(frozen=True, slots=True)
class Call:
    """One call of handle_mm_fault, for a page."""

    gfn: int
    window: FaultCall


@dataclass(slots=True)
class Draft:
    """A mark while it grows."""

    mark: RecordedEvent
    calls: list[Call] = field(default_factory=list)

    def freeze(self) -> RecordedEvent:
        return replace(self.mark, windows=tuple(call.window for call in self.calls))


@dataclass(slots=True)
class L2Tracker:
    """Of one vCPU: whether its L2 runs, when a token was told, and what came between one of an L2 and that entry."""

    guest_mode: bool = False
    _token: Draft | None = None
    _of_l2: bool = False  # whose that token is

    def token_of(self, draft: Draft) -> None:
        """An NP."""
        self._token, self._of_l2 = draft, self.guest_mode

    def feed(self, event: Event, t: int, *, rewrites: bool) -> None:
        """Any event of the vCPU's thread.  ``rewrites``: the VMM reads and writes states while the program runs."""
        token = self._token
        if event.kind in (Kind.L2_ENTRY, Kind.L2_EXIT):
            self.guest_mode = event.kind is Kind.L2_ENTRY
        elif event.kind is Kind.CLEAR and not event.flag:  # a reset
            self.guest_mode, self._token = False, None
        if token is None:
            return
        told = (event.kind is Kind.L2_EXIT and event.flag) or (event.kind is Kind.INJ and not event.flag)
        if event.kind is Kind.ENTRY:
            token.mark = replace(token.mark, until_ns=t)
            self._token = None
        elif self._of_l2 and told:
            token.mark = replace(token.mark, told=True)
        elif self._of_l2 and event.kind is Kind.USER_EXIT and self.guest_mode and not token.mark.told:
            token.mark = replace(token.mark, rewritten=rewrites)
