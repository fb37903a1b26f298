# SPDX-License-Identifier: GPL-2.0-or-later
"""A deadline is a point of the monotonic clock, made once and passed down, so that waits do not add up."""

from __future__ import annotations

import time
from dataclasses import dataclass

from harness.errors import DeadlineExpired


@dataclass(frozen=True, slots=True)
class Deadline:
    """``at`` is a time.monotonic() value in seconds, ``what`` names what is waited for."""

    at: float
    what: str

    @staticmethod
    def after(seconds: float, what: str) -> Deadline:
        return Deadline(time.monotonic() + seconds, what)

    def remaining(self, at_most: float = float("inf")) -> float:
        """Seconds that are left, not less than 0 and not more than ``at_most``."""
        return min(at_most, max(0.0, self.at - time.monotonic()))

    @property
    def expired(self) -> bool:
        return time.monotonic() >= self.at

    def check(self) -> None:
        """:raise DeadlineExpired: no time is left."""
        if self.expired:
            raise DeadlineExpired(f"{self.what}: no answer in time")
