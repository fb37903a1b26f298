# SPDX-License-Identifier: GPL-2.0-or-later
"""A whole run: select, build, boot, perform, judge, report; and at the end, is there a verdict for everything?"""

from __future__ import annotations

import contextlib
import datetime
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from harness.artifacts.store import Store
from harness.errors import UsageError
from harness.judge.verdict_types import Stage
from harness.results import Row, RunResult
from harness.run.ending import OURS, saved_at_the_end
from harness.run.error_status import failure_of
from harness.run.fleet import FleetPool
from harness.run.fleet_client import FleetAddress, open_fleet
from harness.run.own_version import own_version
from harness.run.pool import WorkerPool, hosts_wanted
from harness.run.report_folder import write_page
from harness.run.request import Observer, Request, git_trees
from harness.run.run_folder import ResultsNotWritten, RunFolder
from harness.run.scenario_sources import default_scenarios, read_scenario_files
from harness.run.selection import Job, check_allowed, choose, plan_jobs
from harness.run.setup import find_variants
from harness.run.worker import start_worker

PAGE_EVERY_S = 30.0


def run(request: Request, observer: Observer) -> tuple[RunResult, Path]:
    """Do it; the result and the folder where everything lies.

    Ctrl-C (KeyboardInterrupt) ends the run in order: the host is gone, what has a verdict is reported, and the result
    says that it was interrupted.

    :raise UsageError: the request cannot be carried out as written; nothing was started.
    """
    known = read_scenario_files(request.scenario_paths or (default_scenarios(),))
    chosen = choose(known, request.patterns)
    check_allowed(request.allow_unsupported, known)
    jobs = plan_jobs(chosen.scenarios, find_variants(request), request.repeats)
    for refusal in (*chosen.refused, *chosen.others):
        for line in refusal.problems.splitlines():
            observer.line(f"left out: {line}")
    return perform_jobs(jobs, request, observer, refused=[r.problems for r in chosen.refused])


def perform_jobs(
    jobs: Sequence[Job], request: Request, observer: Observer, refused: Sequence[str] = ()
) -> tuple[RunResult, Path]:
    """Like run(), for jobs that were chosen elsewhere; ``request`` says how and where.

    :param refused: what is wrong with scenario files that were meant too.
    """
    Store(progress=observer.progress)  # a cache that cannot be written is nobody's verdict
    folder = RunFolder.create(request.results, datetime.datetime.now())
    return _Run(request, observer, jobs, folder, refused).all(), folder.path


class _Run:
    def __init__(
        self, request: Request, observer: Observer, jobs: Sequence[Job], folder: RunFolder, refused: Sequence[str]
    ) -> None:
        self._request = request
        self._observer = observer
        self._jobs = jobs
        self._folder = folder
        self._began = time.monotonic()
        self._page_due = self._began + PAGE_EVERY_S
        self._result = RunResult(
            run=folder.path.name,
            command=request.command,
            planned=tuple(job.key for job in jobs),
            rows=(),
            facts={"harness": own_version(), "host": request.host},
            allowed=request.allow_unsupported,
            accepted=request.accepted,
            refused=tuple(refused),
        )

    def all(self) -> RunResult:
        with saved_at_the_end(self._end):
            self._perform()
        return self._result

    def _perform(self) -> None:
        self._save()
        hosts = hosts_wanted(self._jobs, self._request)
        if self._request.fleet is not None:
            self._elsewhere(self._request.fleet)
        elif hosts > 1:
            self._together(hosts)
        else:
            for kernel in dict.fromkeys(job.key.kernel for job in self._jobs):
                self._alone(kernel, [job for job in self._jobs if job.key.kernel == kernel])

    def _end(self, interrupted: bool) -> None:
        self._observer.scope("")
        self._result = replace(self._result, interrupted=interrupted)
        self._save(end=True)

    def _save(self, *, end: bool = False) -> None:
        """Write what is known; the page, which takes longer, at the end and now and then before."""
        self._result = replace(self._result, seconds=time.monotonic() - self._began)
        self._folder.write(self._result)
        if end or time.monotonic() >= self._page_due:
            self._write_page(git_trees(self._request) if end else {})
            self._page_due = time.monotonic() + PAGE_EVERY_S

    def _write_page(self, trees: Mapping[str, Path]) -> None:
        try:
            write_page(self._folder.path, self._result, trees)
        except Exception as exc:  # noqa: BLE001 - a page must not cost a run its verdicts
            with contextlib.suppress(OSError):
                (self._folder.path / "page-failed.txt").write_text(traceback.format_exc())
            self._observer.line(f"the page could not be written: {exc!r} (page-failed.txt)")

    def _elsewhere(self, address: FleetAddress) -> None:
        """On the machines of a fleet.  When that is lost, what has no verdict gets this as its verdict."""
        try:
            with open_fleet(address) as (executor, check):
                pool = FleetPool(self._jobs, self._request, self._folder, self._observer, executor, check)
                try:
                    with contextlib.closing(pool.rows()) as rows:
                        self._take(pool, rows)
                finally:
                    self._result = replace(self._result, troubles=(*self._result.troubles, *pool.troubles))
        except (UsageError, ResultsNotWritten):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it was, every job must get a verdict
            failure = failure_of(exc, Stage.PERFORM)
            done = {row.key for row in self._result.rows}
            for job in self._jobs:
                if job.key not in done:
                    self._add(job.row(failure.verdict(job.scenario.id)))

    def _take(self, pool: FleetPool | WorkerPool, rows: Iterable[Row]) -> None:
        """Each verdict as it comes, with what is known by then of the kernels and their hosts."""
        for row in rows:
            self._result = replace(self._result, facts={**self._result.facts, **pool.facts})
            self._add(row)

    def _together(self, hosts: int) -> None:
        """Several hosts at once, each in a process of its own."""
        pool = WorkerPool(self._jobs, self._request, self._folder, self._observer, hosts)
        try:
            with contextlib.closing(pool.rows()) as rows:
                self._take(pool, rows)
        finally:
            for row in pool.drain():
                with contextlib.suppress(ResultsNotWritten):  # the end of the run says so
                    self._add(row)
            self._result = replace(self._result, facts={**self._result.facts, **pool.facts})

    def _alone(self, kernel: str, jobs: Sequence[Job]) -> None:
        """All jobs of one kernel.  When its host cannot even be built, each of them gets that as its verdict."""
        try:
            with start_worker(kernel, jobs, self._request, self._folder, self._observer) as worker:
                self._result = replace(self._result, facts={**self._result.facts, **worker.facts})
                for job in jobs:
                    self._add(worker.perform(job))
        except (UsageError, ResultsNotWritten):
            raise
        except Exception as exc:  # noqa: BLE001 - whatever it was, every job must get a verdict
            failure = failure_of(exc, Stage.SETUP)
            done = {row.key for row in self._result.rows}
            left = [job for job in jobs if job.key not in done]
            for job in left:
                self._add(job.row(failure.verdict(job.scenario.id)))
            if not left:
                # A machine that was given back otherwise than it was had.
                self._result = replace(self._result, troubles=(*self._result.troubles, failure.reason))

    def _add(self, row: Row) -> None:
        """:raise ResultsNotWritten: it is told all the same."""
        try:
            with OURS.held():  # a verdict of the run has its files
                self._result = replace(self._result, rows=(*self._result.rows, row))
                self._folder.finish(row)
            self._save()
        finally:
            self._observer.verdict(row)
