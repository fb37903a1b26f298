# SPDX-License-Identifier: GPL-2.0-or-later
"""Random scenarios performed until there are enough, and what they disagree about made small."""

from __future__ import annotations

import contextlib
import datetime
import shlex
import shutil
import time
from collections.abc import Callable, Collection, Generator, Iterator
from dataclasses import dataclass, replace
from itertools import count, islice
from pathlib import Path

from harness.artifacts.kernels.mutation_points import reached
from harness.artifacts.store import Store
from harness.contract.plan import Plan
from harness.errors import ModelError, UsageError
from harness.explore.accord import Agreement, judged
from harness.explore.finds import Exploration, Explored, Refused, Shrunk
from harness.explore.generate import GENERATION, generate
from harness.explore.reach import reach
from harness.explore.shrink import shrink
from harness.model.kernels import KernelModel, kernel_for
from harness.prediction import predict
from harness.results import Key, Row
from harness.run.described import stated_release
from harness.run.ending import saved_at_the_end
from harness.run.fleet import FleetPool
from harness.run.fleet_client import open_fleet
from harness.run.mutant_points import REACHED
from harness.run.one_performer import one_performer
from harness.run.pool import WorkerPool, room
from harness.run.request import Observer, Request
from harness.run.run_folder import RunFolder
from harness.run.scenario_sources import REPOSITORY, read_scenarios
from harness.run.selection import Job
from harness.run.whole_file import write_whole
from harness.scenario.build import build_plan
from harness.scenario.dump import dump
from harness.scenario.schema import Scenario

_REPEATS = 10
_CHUNK = 200
"""Scenarios that a pool of several hosts is given at once."""


@dataclass(frozen=True, slots=True)
class ExploreOrder:
    """How much is to be explored.

    :ivar plans: scenarios to perform, 0: as many as there is time for.
    :ivar seconds: time for them, 0: as long as it takes.
    :ivar first: number of the first scenario of the seed.
    :ivar tries: runs that making one disagreement small may take; 0: none is made small.
    :ivar keep: keep the captures of scenarios that agreed, too.
    :ivar generation: of the generator.
    """

    seed: int
    plans: int = 0
    seconds: float = 0.0
    first: int = 0
    tries: int = 60
    keep: bool = False
    generation: int = GENERATION


class Scenarios:
    """The scenarios of a seed that are worth a run, in order, and those that are not, with the reason."""

    def __init__(self, order: ExploreOrder, request: Request) -> None:
        self.kernel = request.names[0]
        self.refused: list[Refused] = []
        self._seed, self._next, self._generation = order.seed, order.first, order.generation
        self._model = model_before(request)
        self._corpus = read_corpus()
        self._found: list[Scenario] = []
        self._reach: dict[str, frozenset[str]] = {}
        self._known: set[str] | None = None
        self._last: tuple[Plan, str, frozenset[str]] | None = None

    def at(self, position: int) -> Scenario:
        """The one at this position, from 0."""
        while len(self._found) <= position:
            scenario = generate(self._seed, self._next, self._corpus, self._generation)
            self._next += 1
            why = self.refuses(scenario)
            if why:
                self.refused.append(Refused(scenario.id, why))
            else:
                self._found.append(scenario)
        return self._found[position]

    def refuses(self, scenario: Scenario) -> str:
        """Why this one is not worth a run; empty: it is."""
        if self._model is None:
            return ""
        plan = replace(build_plan(scenario, 1), scenario="", title="")
        if self._last is None or self._last[0] != plan:  # what repeats another under a new name is predicted once
            self._last = (plan, *self._predicted(plan, self._model))
        _, why, reached_ = self._last
        self._reach[scenario.id] = reached_
        return why

    def _predicted(self, plan: Plan, kernel: KernelModel) -> tuple[str, frozenset[str]]:
        try:
            prediction = predict(plan, kernel)
        except ModelError as exc:
            return exc.message, frozenset()
        return "" if prediction.ends else "the program never ends", reach(prediction)

    def came_by(self, name: str, points: Collection[int]) -> None:
        """A kernel with points in it (kernels/mutate.toml) says which conditions and effects a scenario came by."""
        self._reach[name] = self._reach.get(name, frozenset()) | {f"point {number}" for number in points}

    def is_new(self, name: str) -> bool:
        """Whether a scenario reaches something that none of the corpus does, nor one for which this was said."""
        found = self._reach.get(name, frozenset())
        known = self._known if self._known is not None else self._of_the_corpus()
        self._known = known | found
        return not found <= known

    def _of_the_corpus(self) -> set[str]:
        """What its scenarios reach; to predict them all takes seconds."""
        for scenario in self._corpus:
            self.refuses(scenario)
        return set().union(*(self._reach.get(scenario.id, frozenset()) for scenario in self._corpus))


def explore(wanted: ExploreOrder, request: Request, observer: Observer) -> tuple[Exploration, Path]:
    """Do it; what was found, and the folder where it lies.

    Ctrl-C ends it in order: what was found is kept and told.

    :raise UsageError: the kernel cannot be explored.
    """
    Store(progress=observer.progress)
    folder = RunFolder.create(request.results, datetime.datetime.now())
    run = _Run(wanted, request, observer, folder)
    with saved_at_the_end(run.end):
        run.perform()
        run.make_small()
    return run.found, folder.path


class _Run:
    def __init__(self, wanted: ExploreOrder, request: Request, observer: Observer, folder: RunFolder) -> None:
        self._wanted = wanted
        self._request = request
        self._observer = observer
        self._folder = folder
        self._kernel = request.names[0]
        self._began = time.monotonic()
        self._scenarios = Scenarios(wanted, request)
        self._by_name: dict[str, Scenario] = {}
        self.found = Exploration(
            kernel=self._kernel, seed=wanted.seed, first=wanted.first, generation=wanted.generation
        )

    def perform(self) -> None:
        """Scenarios until there are enough."""
        with contextlib.closing(self._rows()) as rows:
            for row in rows:
                self._add(row)
                if (self._wanted.plans and len(self.found.plans) >= self._wanted.plans) or self._late():
                    return

    def make_small(self) -> None:
        """One disagreement of each kind: the first rule that was broken."""
        kinds: dict[str, Explored] = {}
        for plan in self.found.disagreed:
            kinds.setdefault(plan.judged.rules[0], plan)
        if not kinds or not self._wanted.tries:
            return
        with one_performer(self._kernel, self._request, self._folder, self._observer) as perform:
            for rule, plan in kinds.items():
                self._observer.line(f"{plan.name}: making it small while it breaks {rule!r}")
                self.found = replace(self.found, shrunk=(*self.found.shrunk, self._small(perform, rule, plan)))
                self.save()

    def end(self, interrupted: bool) -> None:
        """The same, and how it ended."""
        self.found = replace(self.found, interrupted=interrupted)
        self.save()

    def save(self) -> None:
        """The files of the whole exploration."""
        self._observer.scope("")
        self.found = replace(self.found, seconds=time.monotonic() - self._began)
        self._folder.write_text("explore.json", self.found.to_json())

    def _late(self) -> bool:
        return bool(self._wanted.seconds) and time.monotonic() - self._began >= self._wanted.seconds

    def _jobs(self) -> Iterator[Job]:
        """One after the other those that the model can predict; the others are noted."""
        for position in count():
            scenario = self._scenarios.at(position)
            self.found = replace(self.found, refused=tuple(self._scenarios.refused))
            self._by_name[scenario.id] = scenario
            yield Job(Key(scenario.id, self._kernel), scenario)

    def _rows(self) -> Generator[Row, None, None]:
        jobs = self._jobs()
        many = iter(lambda: tuple(islice(jobs, min(_CHUNK, self._wanted.plans or _CHUNK))), ())
        hosts = (self._request.hosts or room()) if self._request.place.boots else 1
        around = (self._request, self._folder, self._observer)
        if self._request.fleet is not None:
            with open_fleet(self._request.fleet) as (executor, check):
                for chunk in many:
                    pool = FleetPool(chunk, *around, executor, check)
                    try:
                        with contextlib.closing(pool.rows()) as rows:
                            yield from rows
                    finally:
                        troubles = dict.fromkeys((*self.found.troubles, *pool.troubles))
                        self.found = replace(self.found, troubles=tuple(troubles))
        elif hosts == 1:
            with one_performer(self._kernel, *around) as perform:
                for job in jobs:
                    yield perform(job)
        else:
            for chunk in many:
                with contextlib.closing(WorkerPool(chunk, *around, hosts).rows()) as rows:
                    yield from rows

    def _add(self, row: Row) -> None:
        plan = Explored(row.key.scenario, judged(row.verdict), row.seconds)
        self.found = replace(self.found, plans=(*self.found.plans, plan))
        self._folder.finish(row)
        points = self._folder.path / row.folder / REACHED
        if points.is_file():
            self._scenarios.came_by(plan.name, reached(points.read_text()))
        agreed = (Agreement.EXACT, Agreement.WITHIN, Agreement.KNOWN, Agreement.IDLE)
        if plan.judged.agreement in agreed and not self._wanted.keep:
            shutil.rmtree(self._folder.path / row.folder)
        else:
            write_whole(self._folder.path / row.folder / "scenario.toml", dump(self._by_name[row.key.scenario]))
        if plan.judged.agreement in agreed and self._scenarios.is_new(plan.name):
            kept = self._folder.path / "reached"
            kept.mkdir(exist_ok=True)
            write_whole(kept / f"{plan.name}.toml", dump(self._by_name[plan.name]))
        self._observer.verdict(row)

    def _small(self, perform: Callable[[Job], Row], rule: str, plan: Explored) -> Shrunk:
        tried = 0

        def shows(scenario: Scenario) -> bool:
            nonlocal tried
            tried += 1
            name = f"{plan.name}.{tried}"
            if self._scenarios.refuses(scenario):
                return False
            row = perform(Job(Key(name, self._kernel), replace(scenario, id=name)))
            self._folder.finish(row)
            self._observer.verdict(row)
            return rule in judged(row.verdict).rules

        small = shrink(self._by_name[plan.name], shows, self._wanted.tries)
        small = replace(small, id=f"{plan.name}-small")
        file = self._folder.path / f"{small.id}.toml"
        write_whole(file, dump(small))
        showed = sum(shows(small) for _ in range(_REPEATS))
        where = shlex.join(self._request.where(self._kernel))
        command = f"apf run {small.id} --scenarios {file} {where} --repeats {_REPEATS}"
        return Shrunk(plan.name, rule, str(file), command, showed, _REPEATS, tried)


def read_corpus() -> tuple[Scenario, ...]:
    """The scenarios of tests/corpus, from which an exploration goes on; none where there is no such folder."""
    folder = REPOSITORY / "tests" / "corpus"
    return read_scenarios([folder]) if folder.is_dir() else ()


def model_before(request: Request) -> KernelModel | None:
    """The model by which scenarios are chosen before the kernel runs; None: its release is not known yet.

    :raise UsageError: more than one kernel.
    """
    if len(request.names) != 1:
        raise UsageError("one kernel is explored at a time")
    if not request.kernels:
        return None
    entry = request.kernel(request.kernels[0])
    release = stated_release(entry)
    return kernel_for(entry.variant, release) if release else None
