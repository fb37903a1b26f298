# SPDX-License-Identifier: GPL-2.0-or-later
"""The six words of a verdict."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """A verdict in one word; only PASS is green by itself."""

    PASS = "PASS"
    FINDING = "FINDING"  # the kernel has a fault that is known, and shows it as the model says
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNSUPPORTED = "UNSUPPORTED"
    ERROR = "ERROR"

    @property
    def as_predicted(self) -> bool:
        """The kernel did what its model says, be it right or a known fault."""
        return self in (Status.PASS, Status.FINDING)
