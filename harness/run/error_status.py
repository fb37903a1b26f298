# SPDX-License-Identifier: GPL-2.0-or-later
"""From errors to verdicts: which class means which word."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ApfError, CaptureDamaged, KernelFault, Unsupported, machine_fault
from harness.judge.verdict_types import Finding, Stage, Verdict
from harness.model.kernels import Variant
from harness.status import Status

CONSOLE = "console"
"""The rule of a finding that only the host's console showed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """What ended a scenario, or all scenarios of a kernel, before there was evidence.

    :ivar stage: what was being done.
    :ivar log: raw text that belongs to it: the console's last lines, a traceback.
    :ivar of_kernel: it is a finding about the kernel under test.
    """

    status: Status
    stage: Stage
    reason: str
    log: str = ""
    of_kernel: bool = False

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The console's finding, where it is one."""
        return (Finding(CONSOLE, self.reason),) if self.of_kernel else ()

    def verdict(self, scenario: str, variant: Variant | None = None) -> Verdict:
        """The verdict of a scenario that it ended."""
        return Verdict(
            scenario=scenario,
            status=self.status,
            stage=self.stage,
            reason=self.reason,
            variant=variant,
            findings=self.findings,
            log=self.log,
        )


def failure_of(exc: Exception, stage: Stage, where: Path | None = None) -> Failure:
    """An error that ended a scenario in this stage.

    An error of the operating system may be the machine's fault.  Any other exception that is none of ours is a bug of
    ours: ERROR, with the traceback in the log.

    :param where: the folder that was written to, for an error that names no file.
    """
    if not isinstance(exc, ApfError):
        fault = machine_fault(exc, where) if isinstance(exc, OSError) else None
        log = "".join(traceback.format_exception(exc))
        if fault is not None:
            return Failure(Status.ERROR, stage, str(fault), log)
        return Failure(Status.ERROR, stage, f"bug in the harness: {type(exc).__name__}: {exc}", log)
    if isinstance(exc, KernelFault):
        status = Status.FAIL
    elif isinstance(exc, Unsupported):
        status = Status.UNSUPPORTED
    elif isinstance(exc, CaptureDamaged):
        status = Status.INCONCLUSIVE
    else:
        status = Status.ERROR
    return Failure(status, stage, exc.message, exc.hint, isinstance(exc, KernelFault))
