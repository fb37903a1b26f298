# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole run: select, build, boot, perform, judge, report; and at the end, is there a verdict for everything?"""

from __future__ import annotations

import datetime
import secrets
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from harness.artifacts.store import Store
from harness.errors import UsageError
from harness.report.results import Key, Row, RunResult
from harness.run.folder import RunFolder
from harness.run.judging import Judged, judge_folder
from harness.run.lease import Lease
from harness.run.prepare import Bench, find_variants, open_bench
from harness.run.request import Observer, Request
from harness.run.select import Job, plan_jobs, select
from harness.run.sources import default_scenarios, read_scenarios
from harness.run.verdicts import status_of
from harness.scenario.build import build_plan


def run(request: Request, observer: Observer) -> tuple[RunResult, Path]:
    """Do it; the result and the folder where everything lies.

    Ctrl-C (KeyboardInterrupt) ends the run in order: the host is gone, what has a verdict is reported, and the result
    says that it was interrupted.

    :raise UsageError: the request cannot be carried out as written; nothing was started.
    """
    scenarios = select(read_scenarios(request.scenario_paths or (default_scenarios(),)), request.patterns)
    for name in request.allow_unsupported:
        if name not in {s.id for s in scenarios}:
            raise UsageError(f"--allow-unsupported {name}: no such scenario in this run")
    return perform_jobs(plan_jobs(scenarios, find_variants(request), request.repeats), request, observer)


def perform_jobs(jobs: Sequence[Job], request: Request, observer: Observer) -> tuple[RunResult, Path]:
    """Like run(), for jobs that were chosen elsewhere; ``request`` says how and where."""
    folder = RunFolder.create(request.results, datetime.datetime.now())
    return _Run(request, observer, jobs, folder).all(), folder.path


class _Run:
    def __init__(self, request: Request, observer: Observer, jobs: Sequence[Job], folder: RunFolder) -> None:
        self._request = request
        self._observer = observer
        self._jobs = jobs
        self._folder = folder
        self._began = time.monotonic()
        self._result = RunResult(
            run=folder.path.name,
            command=request.command,
            planned=tuple(job.key for job in jobs),
            rows=(),
            allowed=request.allow_unsupported,
        )

    def all(self) -> RunResult:
        self._save()
        try:
            store = Store(progress=self._observer.progress)
            for kernel in dict.fromkeys(job.key.kernel for job in self._jobs):
                self._kernel(store, kernel, [job for job in self._jobs if job.key.kernel == kernel])
        except KeyboardInterrupt:
            self._result = replace(self._result, interrupted=True)
        finally:
            self._observer.scope("")
            self._save()
        return self._result

    def _save(self) -> None:
        self._result = replace(self._result, seconds=time.monotonic() - self._began)
        self._folder.write(self._result)

    def _kernel(self, store: Store, kernel: str, jobs: Sequence[Job]) -> None:
        """All jobs of one kernel.  When its host cannot even be built, each of them gets that as its verdict."""
        self._observer.scope(kernel)
        try:
            bench = open_bench(store, kernel, jobs, self._request, self._folder, self._observer)
        except UsageError:
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it was, every job must get a verdict
            status, reason, details = status_of(exc)
            for job in jobs:
                self._add(Row(job.key, status, reason, job.scenario.title, folder=job.key.folder, details=details))
            return
        self._result = replace(self._result, facts={**self._result.facts, **bench.facts})
        with Lease(bench.start, bench.payload) as lease:
            for job in jobs:
                self._observer.scope(str(job.key))
                self._add(self._job(bench, lease, job))

    def _job(self, bench: Bench, lease: Lease, job: Job) -> Row:
        began = time.monotonic()
        plan = build_plan(job.scenario, secrets.randbits(64))
        where = self._folder.start(job.key, plan, repeat_command(self._request, job.key))
        capture = where / "capture"
        title = job.scenario.title
        judged: Judged | None = None
        try:
            lease.performer().perform(plan, capture, lambda step, _told: self._observer.progress(step))
        except Exception as exc:  # noqa: BLE001 - whatever it was, this job must get a verdict
            judged = self._failed(exc, lease)
        if judged is None:
            self._observer.progress("judging")
            try:
                judged = judge_folder(capture, bench.variant)
            except Exception as exc:  # noqa: BLE001 - as above; the host is not to blame for the judge
                judged = Judged(*status_of(exc))
        if judged.taints and lease.host is not None:
            lease.host.taint(judged.taints)
        return Row(
            job.key,
            judged.status,
            judged.reason,
            title,
            judged.seen,
            judged.predicted,
            time.monotonic() - began,
            job.key.folder,
            judged.details,
            bench.variant,
        )

    def _failed(self, exc: Exception, lease: Lease) -> Judged:
        """The verdict when the performance itself failed, with the host's last words; the host is used up."""
        status, reason, details = status_of(exc)
        if lease.host is not None:
            lease.host.taint(reason)
            details = "\n".join(filter(None, (details, lease.host.diagnose())))
        return Judged(status, reason, details)

    def _add(self, row: Row) -> None:
        self._result = replace(self._result, rows=(*self._result.rows, row))
        self._folder.finish(row)
        self._save()
        self._observer.verdict(row)


def repeat_command(request: Request, key: Key) -> list[str]:
    """The command line that repeats one verdict only."""
    paths = [word for path in request.scenario_paths for word in ("--scenarios", str(path.absolute()))]
    host = [] if request.host == "virtual" else ["--host", request.host]
    disk = ["--disk", request.disk] if request.disk else []
    return [sys.executable, "-m", "harness.cli", "run", key.scenario, "--kernel", key.kernel, "--repeats", "1",
            *paths, *host, *disk]  # fmt: skip
