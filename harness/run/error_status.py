# SPDX-License-Identifier: GPL-2.0-or-later
"""From errors to verdicts: which class means which word."""

from __future__ import annotations

import traceback

from harness.errors import ApfError, CaptureDamaged, KernelFault, Unsupported
from harness.status import Status


def status_of(exc: Exception) -> tuple[Status, str, str]:
    """(status, reason, details) for an error that ended a scenario.

    An exception that is none of ours is a bug of ours: ERROR, with the traceback in the details.
    """
    if not isinstance(exc, ApfError):
        details = "".join(traceback.format_exception(exc))
        return Status.ERROR, f"bug in the harness: {type(exc).__name__}: {exc}", details
    if isinstance(exc, KernelFault):
        status = Status.FAIL
    elif isinstance(exc, Unsupported):
        status = Status.UNSUPPORTED
    elif isinstance(exc, CaptureDamaged):
        status = Status.INCONCLUSIVE
    else:
        status = Status.ERROR
    return status, exc.message, exc.hint
