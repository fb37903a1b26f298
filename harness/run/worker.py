# SPDX-License-Identifier: GPL-2.0-or-later
"""What performs the jobs of one kernel, one after the other: its setup, its host, and a verdict for each job."""

from __future__ import annotations

import contextlib
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from harness.artifacts.store import Store
from harness.contract.plan import Plan
from harness.errors import ApfError, HostLost, ModelError
from harness.hosts.base import Host
from harness.judge.host_left import is_unknown
from harness.judge.verdict_types import Stage, Verdict
from harness.prediction import unending
from harness.report.ranges import ranges
from harness.results import Row
from harness.run.cited_functions import with_differences
from harness.run.drawings import write_drawings
from harness.run.error_status import failure_of
from harness.run.host_slot import HostSlot
from harness.run.judge_folder import end_of, judge_folder_whole
from harness.run.repeat_command import repeat_command
from harness.run.request import Observer, Request
from harness.run.run_folder import RunFolder
from harness.run.selection import Job
from harness.run.setup import HostSetup, find_setup
from harness.scenario.build import build_plan
from harness.status import Status

GO = "go"
"""The agent's step with which the guest's program is started: the scenario has begun."""


@contextmanager
def start_worker(
    kernel: str, jobs: Sequence[Job], request: Request, folder: RunFolder, observer: Observer
) -> Iterator[Worker]:
    """A worker with all that its kernel needs; on exit its host is gone.

    :param jobs: all that it may be asked to perform; they decide what has to be built.
    :raise ApfError: something cannot be built, or this machine cannot do it.
    """
    observer.scope(kernel)
    setup = find_setup(Store(progress=observer.progress), kernel, jobs, request, folder, observer)
    with HostSlot(setup.start, setup.payload, trace_dat=request.trace_dat) as slot:
        yield Worker(setup, slot, request, folder, observer)


@dataclass(slots=True)
class Attempt:
    """One performance of a plan.

    :ivar stage: how far it came.
    :ivar began: time.monotonic() when its host was there: a boot is not of the scenario's doing.
    :ivar steps: the agent's steps so far.
    :ivar error: what ended it, None when it came to its end.
    """

    stage: Stage = Stage.BOOT
    began: float = field(default_factory=time.monotonic)
    steps: list[str] = field(default_factory=list)
    error: Exception | None = None


class Worker:
    """Performs jobs and judges them; made by start_worker()."""

    def __init__(
        self, setup: HostSetup, slot: HostSlot, request: Request, folder: RunFolder, observer: Observer
    ) -> None:
        self._setup = setup
        self._slot = slot
        self._request = request
        self._folder = folder
        self._observer = observer

    @property
    def facts(self) -> dict[str, str]:
        """What is known of the kernel and its host."""
        return self._setup.facts

    def perform(self, job: Job) -> Row:
        """One job, performed and judged; whatever goes wrong becomes its verdict."""
        self._observer.scope(str(job.key))
        stage = Stage.SETUP
        try:
            plan = build_plan(job.scenario, secrets.randbits(64))
            where = self._folder.start(job.key, plan, job.scenario, repeat_command(self._request, job.key))
            stage = Stage.JUDGE
            return self._performed(job, plan, where / "capture")
        except Exception as exc:  # noqa: BLE001 - a scenario without a plan, or a bug of ours, must not end the others
            if stage is not Stage.SETUP and self._slot.host is not None:
                self._slot.host.taint("nobody knows how its scenario left it")
            return job.row(failure_of(exc, stage).verdict(job.scenario.id, self._setup.variant))

    def _performed(self, job: Job, plan: Plan, capture: Path) -> Row:
        self._warn(job, plan)
        attempt, retries = self._perform_with_retry(plan, capture)
        verdict = replace(self._verdict(plan, capture, attempt), retries=retries)
        verdict = with_differences(verdict, self._setup.difference)
        if self._slot.host is not None and uses_up(verdict, wrong_kernel=self._request.wrong_kernel):
            self._slot.host.taint("its scenario left it in an unknown state")
        return job.row(verdict, time.monotonic() - attempt.began)

    def _warn(self, job: Job, plan: Plan) -> None:
        """Say so before a program is performed of which the model knows that it never ends, or that it cannot be
        performed as planned; what comes of it is told when it is judged."""
        left: tuple[int, ...] = ()
        if self._setup.kernel is not None:
            try:
                left = unending(plan, self._setup.kernel)
            except ModelError as exc:
                self._observer.line(f"{job.key}: the model does not get through this plan: {exc}")
        if left:
            self._observer.line(
                f"{job.key}: the model says that the program never ends (items {ranges(left)}): it is stopped at its"
                f" deadline of {plan.deadline_s} s, and what is judged is what happened until then"
            )

    def _perform_with_retry(self, plan: Plan, capture: Path) -> tuple[Attempt, tuple[str, ...]]:
        """Perform it; once more when the host fell silent before the guest's program was started.

        An emulated host does that once in some hundred scenarios on a busy machine, on every kernel (docs/adr/0005).  A
        kernel that hangs by its own fault does it again on the next host.  Once the program ran nothing is repeated.

        :return: the attempt that counts, and why an earlier one does not.
        """
        first = self._attempt(plan, capture)
        if first.error is None or GO in first.steps or self._request.wrong_kernel:
            return first, ()
        if not _fell_silent(first.error, self._slot.host):
            return first, ()
        capture.rename(capture.with_name("capture-of-silent-host"))
        return self._attempt(plan, capture), (failure_of(first.error, first.stage, capture).reason,)

    def _attempt(self, plan: Plan, capture: Path) -> Attempt:
        attempt = Attempt()

        def on_step(step: str, _told: object) -> None:
            attempt.steps.append(step)
            self._observer.progress(step)

        try:
            performer = self._slot.performer()
            attempt.stage, attempt.began = Stage.PERFORM, time.monotonic()
            performer.perform(plan, capture, on_step)
        except Exception as exc:  # noqa: BLE001 - whatever it was, this job must get a verdict
            attempt.error = exc
        return attempt

    def _verdict(self, plan: Plan, capture: Path, attempt: Attempt) -> Verdict:
        if attempt.error is not None:
            return self._of_failure(plan, capture, attempt.error, attempt.stage)
        self._observer.progress("judging")
        try:
            judged = judge_folder_whole(capture, self._setup.model)
        except Exception as exc:  # noqa: BLE001 - as above; the host is not to blame for the judge
            verdict = failure_of(exc, Stage.JUDGE, capture).verdict(plan.scenario, self._setup.variant)
            return replace(verdict, taints=is_unknown(end_of(capture)))
        if not self._request.wrong_kernel:  # a vCPU that spins leaves a trace that takes minutes to draw
            self._observer.progress("drawing")
            write_drawings(capture.parent, judged)
        return judged.verdict

    def _of_failure(self, plan: Plan, capture: Path, exc: Exception, stage: Stage) -> Verdict:
        """The verdict when the performance itself failed, with the last that the host said; the host is used up.

        A finding about the kernel comes with what the capture shows of how it came to that, as far as there is one.
        """
        failure = failure_of(exc, stage, capture)
        host = self._slot.host
        if host is not None:
            host.taint(failure.reason)
            failure = replace(failure, log="\n".join(filter(None, (failure.log, host.diagnose()))))
        if failure.of_kernel and stage is Stage.PERFORM:
            with contextlib.suppress(ApfError, OSError):  # what there is may be cut by what filled the disk
                judged = judge_folder_whole(capture, self._setup.model)
                write_drawings(capture.parent, judged)
                seen = judged.verdict
                return replace(
                    seen,
                    status=failure.status,
                    reason=failure.reason,
                    findings=(*failure.findings, *seen.findings),
                    log="\n\n".join(filter(None, (failure.log, seen.reason))),
                )
        return failure.verdict(plan.scenario, self._setup.variant)


def uses_up(verdict: Verdict, *, wrong_kernel: bool) -> bool:
    """The host must not be used again after this verdict.

    A kernel that was made wrong may have written where it should not, so that what is performed on the same host
    afterwards would be charged with it; it is trusted only while all is as predicted.
    """
    suspect = not verdict.status.as_predicted and verdict.status is not Status.UNSUPPORTED
    return verdict.taints or (wrong_kernel and suspect)


def _fell_silent(exc: Exception, host: Host | None) -> bool:
    """The host did not answer, although its QEMU runs and its console has no finding."""
    if not isinstance(exc, HostLost) or host is None:
        return False
    try:
        host.check()
    except ApfError:
        return False
    return True
