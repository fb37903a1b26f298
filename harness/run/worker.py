# SPDX-License-Identifier: GPL-2.0-or-later
"""What performs the jobs of one kernel, one after the other: its bench, its host, and a verdict for each job."""

from __future__ import annotations

import contextlib
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from harness.artifacts.store import Store
from harness.errors import ApfError, HostLost, KernelFault
from harness.hosts.base import Host
from harness.results import Key, Row
from harness.run.error_status import status_of
from harness.run.host_slot import Lease
from harness.run.judge_folder import Judged, judge_folder
from harness.run.request import Observer, Request
from harness.run.run_folder import RunFolder
from harness.run.selection import Job
from harness.run.setup import Bench, open_bench
from harness.scenario.build import build_plan


class Worker:
    """Context manager: the bench is built on entry, the host is gone on exit.

    :param jobs: all that it may be asked to perform; they decide what has to be built.
    :raise ApfError: on entry: something cannot be built, or this machine cannot do it.
    """

    def __init__(
        self, kernel: str, jobs: Sequence[Job], request: Request, folder: RunFolder, observer: Observer
    ) -> None:
        self._kernel = kernel
        self._jobs = jobs
        self._request = request
        self._folder = folder
        self._observer = observer
        self._bench: Bench | None = None
        self._lease: Lease | None = None

    def __enter__(self) -> Worker:
        self._observer.scope(self._kernel)
        store = Store(progress=self._observer.progress)
        self._bench = open_bench(store, self._kernel, self._jobs, self._request, self._folder, self._observer)
        self._lease = Lease(self._bench.start, self._bench.payload)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._lease is not None:
            self._lease.drop()

    @property
    def facts(self) -> dict[str, str]:
        """What is known of the kernel and its host."""
        assert self._bench is not None
        return self._bench.facts

    def perform(self, job: Job) -> Row:
        """One job, performed and judged; whatever goes wrong becomes its verdict."""
        assert self._bench is not None and self._lease is not None
        self._observer.scope(str(job.key))
        plan = build_plan(job.scenario, secrets.randbits(64))
        where = self._folder.start(job.key, plan, repeat_command(self._request, job.key))
        capture = where / "capture"
        began, silence = time.monotonic(), ""
        while True:
            steps: list[str] = []

            def on_step(step: str, _told: object, steps: list[str] = steps) -> None:
                steps.append(step)
                self._observer.progress(step)

            try:
                performer = self._lease.performer()
                began = time.monotonic()  # a boot is not of this scenario's doing
                performer.perform(plan, capture, on_step)
            except Exception as exc:  # noqa: BLE001 - whatever it was, this job must get a verdict
                if not silence and GO not in steps and _fell_silent(exc, self._lease.host):
                    silence = status_of(exc)[1]
                    capture.rename(where / "capture-of-silent-host")
                    continue
                judged = self._failed(exc, self._lease)
                if isinstance(exc, KernelFault):
                    judged = _with_evidence(judged, capture, self._bench.variant)
            else:
                self._observer.progress("judging")
                try:
                    judged = judge_folder(capture, self._bench.variant)
                except Exception as exc:  # noqa: BLE001 - as above; the host is not to blame for the judge
                    judged = Judged(*status_of(exc))
            break
        if silence:
            again = f"second attempt; the first host fell silent: {silence}"
            judged = replace(judged, reason="\n".join(filter(None, (judged.reason, again))))
        if judged.taints and self._lease.host is not None:
            self._lease.host.taint(judged.taints)
        return Row(
            job.key,
            judged.status,
            judged.reason,
            job.scenario.title,
            judged.seen,
            judged.predicted,
            time.monotonic() - began,
            job.key.folder,
            judged.details,
            self._bench.variant,
        )

    def _failed(self, exc: Exception, lease: Lease) -> Judged:
        """The verdict when the performance itself failed, with the host's last words; the host is used up."""
        status, reason, details = status_of(exc)
        if lease.host is not None:
            lease.host.taint(reason)
            details = "\n".join(filter(None, (details, lease.host.diagnose())))
        return Judged(status, reason, details)


GO = "go"
"""The agent's step with which the guest is let go: the scenario has begun."""


def _fell_silent(exc: Exception, host: Host | None) -> bool:
    """The host did not answer, although its QEMU runs and its console has no finding.

    An emulated host does that once in some hundred scenarios on a busy machine, on every kernel (docs/adr/0005).  A
    kernel that hangs by its own fault does it again on the next host.  Once the guest was let go nothing is repeated.
    """
    if not isinstance(exc, HostLost) or host is None:
        return False
    try:
        host.check()
    except ApfError:
        return False
    return True


def _with_evidence(judged: Judged, capture: Path, variant: str) -> Judged:
    """A finding on the console, with what the capture shows of how it came to that, as far as there is one."""
    with contextlib.suppress(ApfError):
        seen = judge_folder(capture, variant)
        details = "\n\n".join(filter(None, (judged.details, seen.reason, seen.details)))
        return replace(judged, details=details, seen=seen.seen, predicted=seen.predicted)
    return judged


def repeat_command(request: Request, key: Key) -> list[str]:
    """The command line that repeats one verdict only."""
    paths = [word for path in request.scenario_paths for word in ("--scenarios", str(path.absolute()))]
    host = [] if request.host == "virtual" else ["--host", request.host]
    disk = ["--disk", request.disk] if request.disk else []
    return [sys.executable, "-m", "harness.cli", "run", key.scenario, "--kernel", key.kernel, "--repeats", "1",
            *paths, *host, *disk]  # fmt: skip
