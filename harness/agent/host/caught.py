# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever goes wrong in one step, kept, so that the steps behind it are done all the same."""

from __future__ import annotations

from types import TracebackType


class Caught:
    """A context that ends with any exception in it.  ``error``: which; None: there was none.

    What ends a process (SystemExit and the like) passes through.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None

    def __enter__(self) -> Caught:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _at: TracebackType | None
    ) -> bool:
        self.error = error if isinstance(error, Exception) else None
        return self.error is not None


def in_words(error: Exception) -> str:
    """What an exception says of itself, with its type: a number alone, or a key, says nothing."""
    return f"{type(error).__name__}: {error}"
