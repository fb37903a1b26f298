# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs of one kernel, one after the other, each chosen by what came before: here, or on a machine of the fleet."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from harness.errors import InfraFault
from harness.results import Row
from harness.run.fleet import FleetPool
from harness.run.fleet_client import open_fleet
from harness.run.request import Observer, Request
from harness.run.run_folder import RunFolder
from harness.run.selection import Job
from harness.run.worker import start_worker


@contextlib.contextmanager
def one_performer(
    kernel: str, request: Request, folder: RunFolder, observer: Observer
) -> Iterator[Callable[[Job], Row]]:
    """What performs a job and returns its verdict; on exit its host is gone, or the fleet is left.

    :raise ApfError: see start_worker() and open_fleet(); on exit: a machine is not as it was before.
    """
    if request.fleet is None:
        with start_worker(kernel, (), request, folder, observer) as worker:
            yield worker.perform
        return
    with open_fleet(request.fleet) as (executor, check):
        troubles: list[str] = []

        def perform(job: Job) -> Row:
            pool = FleetPool((job,), request, folder, observer, executor, check)
            (row,) = pool.rows()
            troubles.extend(pool.troubles)
            return row

        yield perform
    if troubles:
        raise InfraFault("\n".join(dict.fromkeys(troubles)))
