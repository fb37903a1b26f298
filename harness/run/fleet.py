# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs spread over many machines through an executor (concurrent.futures): whose it is, this module does not know.

A chunk of jobs is one call of perform_chunk() somewhere.  What comes back is the folder of a run; its verdicts and
their evidence are moved into the folder of this run, as if they had been performed here.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import replace
from pathlib import Path

from harness.errors import InfraFault
from harness.hosts.untar import untar
from harness.judge.verdict_types import Stage
from harness.results import Row
from harness.run.error_status import failure_of
from harness.run.fleet_chunk import FleetChunk, perform_chunk, version_of_this
from harness.run.repeat_command import repeat_command
from harness.run.report_folder import read_run
from harness.run.request import Observer, Request
from harness.run.run_folder import RunFolder
from harness.run.selection import Job
from harness.scenario.dump import dump

CHUNK = 8
"""Jobs of a chunk: enough that the boot of a host is worth its while, few enough that a lost worker costs little."""
_LOOK_S = 2.0


def chunks_of(jobs: Sequence[Job], size: int = CHUNK) -> tuple[tuple[Job, ...], ...]:
    """The jobs in order, cut where the kernel or the repeat changes: a run on a worker has each scenario once."""
    found: list[list[Job]] = []
    for job in jobs:
        last = found[-1] if found else []
        alike = last and (last[0].key.kernel, last[0].key.repeat) == (job.key.kernel, job.key.repeat)
        if not alike or len(last) >= size:
            found.append([])
        found[-1].append(job)
    return tuple(map(tuple, found))


class FleetPool:
    """Performs jobs elsewhere; rows() hands out verdicts as they come.

    :param check: raises when the executor is lost; asked now and then.
    :ivar facts: of the runs that have come back.
    :ivar troubles: of theirs that are about no scenario, such as a machine that is not as it was before.
    """

    def __init__(
        self, jobs: Sequence[Job], request: Request, folder: RunFolder, observer: Observer, executor: Executor,
        check: Callable[[], None] = lambda: None, size: int = CHUNK,
    ) -> None:  # fmt: skip
        self._jobs = jobs
        self._request = request
        self._folder = folder
        self._observer = observer
        self._executor = executor
        self._check = check
        self._size = size
        self.facts: dict[str, str] = {}
        self.troubles: list[str] = []

    def rows(self) -> Generator[Row, None, None]:
        """A verdict for every job, whatever becomes of the machines; what waits is cancelled when this is left early.

        :raise InfraFault: the executor is lost: see ``check``.
        """
        waiting: dict[Future[bytes], tuple[Job, ...]] = {}
        for jobs in chunks_of(self._jobs, self._size):
            texts = tuple(dump(job.scenario) for job in jobs)
            chunk = FleetChunk(version_of_this(), _kernel(jobs[0], self._request), texts, self._words())
            waiting[self._executor.submit(perform_chunk, chunk)] = jobs
        try:
            total = len(waiting)
            while waiting:
                done, _ = wait(waiting, timeout=_LOOK_S, return_when=FIRST_COMPLETED)
                self._check()
                self._observer.progress(f"{total - len(waiting)} of {total} chunks", 1 - len(waiting) / total)
                for future in done:
                    yield from self._received(future, waiting.pop(future))
        finally:
            for future in waiting:
                future.cancel()

    def _received(self, future: Future[bytes], jobs: tuple[Job, ...]) -> Iterator[Row]:
        left = {job.key: job for job in jobs}
        failure = failure_of(InfraFault("the worker gave no verdict"), Stage.PERFORM)
        try:
            with tempfile.TemporaryDirectory(prefix="apf-fleet-", dir=self._folder.path) as scratch:
                untar(future.result(), Path(scratch))
                result = read_run(Path(scratch))
                self.facts |= {name: value for name, value in result.facts.items() if name != "host"}
                self.troubles += [trouble for trouble in result.troubles if trouble not in self.troubles]
                for row in result.rows:
                    key = replace(row.key, repeat=jobs[0].key.repeat)
                    if key in left:
                        self._move(Path(scratch) / row.folder, left[key])
                        yield replace(row, key=left.pop(key).key)
        except Exception as exc:  # noqa: BLE001 - whatever it was, every job must get a verdict
            failure = failure_of(exc, Stage.PERFORM)
        for job in left.values():
            yield job.row(failure.verdict(job.scenario.id))

    def _move(self, source: Path, job: Job) -> None:
        """The folder of a verdict to where it would be if it had been performed here; what repeats it does so here."""
        target = self._folder.path / job.key.folder
        if source.is_dir() and not target.exists():
            source.rename(target)
            self._folder.write_repeat(job.key, job.scenario, repeat_command(self._request, job.key))

    def _words(self) -> tuple[str, ...]:
        request = self._request
        words = request.guest_words
        words += ["--hosts", "1"] if request.place.boots else ["--host", request.host]
        words += ["--disk", request.disk] if request.disk else []
        words += ["--wait", str(int(request.wait_s))] if request.wait_s else []
        words += ["--trace-dat"] if request.trace_dat else []
        words += ["--wrong-kernel"] if request.wrong_kernel else []
        return tuple(words)


def _kernel(job: Job, request: Request) -> str:
    """Empty: the one that the worker's host has."""
    return job.key.kernel if job.key.kernel in request.kernels else ""
