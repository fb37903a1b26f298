# SPDX-License-Identifier: GPL-2.0-or-later
"""When a thread of a recorded run looked at a page, and what it chose to read with it."""

from __future__ import annotations

from dataclasses import dataclass, field

from harness.model.readahead import ReadaheadState
from harness.model.simulation.recorded import FaultCall


@dataclass(slots=True)
class PageWatch:
    """When a thread looked at a page, from a recording: its calls of handle_mm_fault, within [start_ns, end_ns].

    ``thread``: its id, so that what it did to the page itself is not taken for another's doing; ``at``: the number of
    the call that it is in, or was in last; ``overtaken``: in that another mapped the page before it; ``read``: pages
    that the model has submitted in it; ``held_until_ns``: when it goes on with its own page, where others have come
    between, and it may have submitted others of its window before; ``added``: of these the one that it has just put
    into the cache; ``bio``: pages (vpns) of swap that share the last bio that it has begun in its call.
    """

    start_ns: int
    end_ns: int
    windows: tuple[FaultCall, ...] = ()
    thread: int = 0
    at: int = -1
    overtaken: bool = False
    read: set[int] = field(default_factory=set)
    cut: bool = False
    held_until_ns: int = 0
    added: int = -1
    bio: list[int] = field(default_factory=list)

    def begins_call(self) -> None:
        """What it has read in its call before is not of the one that begins."""
        self.read.clear()
        self.bio = []

    @property
    def left_ns(self) -> int:
        """When it was through with the page."""
        return max(self.end_ns, *(w.end_ns for w in self.windows)) if self.windows else self.end_ns

    @property
    def window(self) -> FaultCall | None:
        """The call that it is in; None: it is in none that was recorded."""
        return self.windows[self.at] if 0 <= self.at < len(self.windows) else None

    @property
    def since_ns(self) -> int:
        """When the call before the next one was over."""
        window = self.window
        return window.end_ns if window else self.start_ns

    @property
    def calls_again(self) -> bool:
        """Another call was recorded: what the thread looks at before it is not as it wants it."""
        return self.at + 1 < len(self.windows)

    @property
    def at_the_end(self) -> bool:
        """The recording ends before the thread did anything more."""
        return self.cut and not self.calls_again


@dataclass(frozen=True, slots=True)
class WindowChoice:
    """A window of swap that a thread chose in its call of handle_mm_fault; what read-ahead remembered until then."""

    thread: int
    start_ns: int
    end_ns: int
    before: ReadaheadState
