# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of a fleet that is not as it was before: its worker's run says so, and so does the run that asked."""

from __future__ import annotations

import contextlib
import datetime
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.errors import InfraFault
from harness.explore.accord import Agreement, Judged
from harness.explore.finds import Exploration, Explored
from harness.hosts.trial import trial_plan
from harness.report.explore_text import explore_lines
from harness.results import RunResult
from harness.run import exploration, one_performer, runner
from harness.run.exploration import ExploreOrder, explore
from harness.run.fleet_chunk import FleetChunk, _archive
from harness.run.fleet_client import FleetAddress
from harness.run.repeat_command import repeat_command
from harness.run.request import Request
from harness.run.run_folder import REPEAT, SCENARIO, RunFolder
from harness.run.runner import perform_jobs
from harness.run.scenario_sources import read_scenarios
from harness.run.selection import Job, plan_jobs
from harness.scenario.load import load_text
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.run.test_bad_luck import Listener
from tests.unit.scenarios import all_scenarios

TROUBLE = "box is not as before: swap was '', is '/dev/nbd0'"
FLEET = FleetAddress("tcp://127.0.0.1:1")


class Workers(Executor):
    """Sends back the folder of a run in which everything was green, but for a machine that could not be put back."""

    def submit(self, *given: Any, **_more: Any) -> Future[Any]:
        chunk: FleetChunk = given[1]
        jobs = plan_jobs([s for text in chunk.scenarios for s in load_text("x", text)], {"local": "nowait"})
        rows = [row_of(job.key, Status.PASS) for job in jobs]
        with tempfile.TemporaryDirectory() as scratch:
            folder = RunFolder.create(Path(scratch), datetime.datetime.now())
            for job, row in zip(jobs, rows, strict=True):
                folder.start(job.key, trial_plan(), job.scenario, ["of the worker"])
                folder.finish(row)
            folder.write(RunResult("r", "apf run", tuple(job.key for job in jobs), tuple(rows), troubles=(TROUBLE,)))
            future: Future[Any] = Future()
            future.set_result(_archive(folder.path))
            return future


@pytest.fixture
def request_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Request:
    @contextlib.contextmanager
    def fleet(_address: FleetAddress) -> Iterator[tuple[Executor, Callable[[], None]]]:
        yield Workers(), lambda: None

    for module in (runner, one_performer, exploration):
        monkeypatch.setattr(module, "open_fleet", fleet)
    return Request(kernels=(), host="local", results=tmp_path, fleet=FLEET)


def jobs() -> tuple[Job, ...]:
    return plan_jobs([all_scenarios()[name] for name in ("S23", "S29")], {"local": "nowait"})


def test_a_run_on_a_fleet_is_red(request_: Request) -> None:
    result, folder = perform_jobs(jobs(), request_, Listener(""))
    assert {row.status for row in result.rows} == {Status.PASS} and not result.missing
    assert result.troubles == (TROUBLE,)
    assert result.exit_code == 3
    for job in jobs():  # and what repeats a verdict does so here, from the scenario itself
        here = folder / job.key.folder
        assert read_scenarios([here / SCENARIO]) == (job.scenario,)
        assert str(here / SCENARIO) in (here / REPEAT).read_text()
        assert " ".join(repeat_command(request_, job.key) or ["none"]) in (here / REPEAT).read_text()


def test_jobs_one_after_the_other_end_with_it(request_: Request, tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, datetime.datetime.now())
    rows = []
    with (
        pytest.raises(InfraFault, match="box is not as before"),
        one_performer.one_performer("local", request_, folder, Listener("")) as perform,
    ):
        rows += [perform(job) for job in jobs()]
    assert [row.status for row in rows] == [Status.PASS] * 2


def test_an_exploration_on_a_fleet_is_red(request_: Request) -> None:
    found, _folder = explore(ExploreOrder(seed=1, plans=2), request_, Listener(""))
    assert found.troubles == (TROUBLE,)
    assert found.exit_code == 3
    assert TROUBLE in list(explore_lines(found))
    green = Exploration(kernel="k", seed=1, plans=(Explored("x1", Judged(Agreement.EXACT), 1.0),))
    assert (green.exit_code, replace(green, troubles=(TROUBLE,)).exit_code) == (0, 3)
