# SPDX-License-Identifier: GPL-2.0-or-later
"""The five words of a verdict."""

from __future__ import annotations

from enum import StrEnum


class Status(StrEnum):
    """A verdict in one word; only PASS is green by itself."""

    PASS = "PASS"
    FAIL = "FAIL"
    INCONCLUSIVE = "INCONCLUSIVE"
    UNSUPPORTED = "UNSUPPORTED"
    ERROR = "ERROR"
