# SPDX-License-Identifier: GPL-2.0-or-later
"""What goes on, on a terminal: a line for each scope, redrawn in place below the lines that stay.

Drawn only when it is told to, by no thread of its own: workers are forked from this process.
"""

from __future__ import annotations

from typing import TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

_AT_MOST = 6
"""Lines at once; the longest unheard go first."""


class LiveLines:
    """See the module's text.  Life cycle: nothing is drawn before show(), and nothing is left after clear()."""

    def __init__(self, stream: TextIO) -> None:
        self._console = Console(file=stream, force_terminal=True, highlight=False, markup=False, emoji=False)
        self._live: Live | None = None
        self._works: dict[str, tuple[str, float | None]] = {}

    def show(self, scope: str, what: str, done: float | None) -> None:
        """What is being done in ``scope`` now, with the share of it that is done (0.0 to 1.0), where known."""
        self._works.pop(scope, None)
        self._works[scope] = (what, done)
        for oldest in list(self._works)[:-_AT_MOST]:
            del self._works[oldest]
        if self._live is None:
            self._live = Live(
                console=self._console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
            )
            self._live.start()
        self._draw()

    def drop(self, scope: str) -> None:
        """The work of ``scope`` has ended."""
        if self._works.pop(scope, None) is not None:
            self._draw()

    def print(self, what: RenderableType) -> None:
        """Something that stays."""
        self._console.print(what, soft_wrap=isinstance(what, Text))

    def clear(self) -> None:
        """Take all lines of work away."""
        self._works.clear()
        live, self._live = self._live, None
        if live is not None:
            live.update(Text(""), refresh=True)
            live.stop()

    def _draw(self) -> None:
        if self._live is not None:
            lines = [_line(scope, what, done) for scope, (what, done) in self._works.items()]
            self._live.update(Group(*lines), refresh=True)


def _line(scope: str, what: str, done: float | None) -> RenderableType:
    text = Text(no_wrap=True, overflow="ellipsis")
    if scope:
        text.append(f"{scope}: ", style="bold")
    text.append(what)
    if done is None:
        return text
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True, overflow="ellipsis")
    grid.add_column(width=20)
    grid.add_column(no_wrap=True)
    grid.add_row(text, ProgressBar(total=1.0, completed=done, width=20), Text(f"{done * 100:.0f} %"))
    return grid
