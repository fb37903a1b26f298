# SPDX-License-Identifier: GPL-2.0-or-later
"""An exploration from seed to summary.  The kernel is a stand-in: a model that is wrong in one point."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from harness.contract.plan import Access, Plan
from harness.errors import ModelError, UsageError
from harness.explore.accord import Agreement
from harness.judge.verdict_types import Finding, ItemRow, Reader, Verdict
from harness.model.kernels import KernelModel, find_kernel
from harness.model.outcomes import Count, Outcome
from harness.prediction import predict
from harness.results import Row
from harness.run import one_performer
from harness.run.exploration import ExploreOrder, Scenarios, explore
from harness.run.request import Request
from harness.run.selection import Job
from harness.scenario.build import build_plan
from harness.scenario.load import load_text
from harness.scenario.schema import Scenario
from harness.status import Status
from tests.unit.run.test_bad_luck import Listener

SOUND = find_kernel("nowait-6.1")
WRONG = replace(SOUND, do_poll=False)


class WrongKernel:
    """Fails a scenario in which the wrong model expects another outcome; ``last``: Ctrl-C comes instead of more."""

    def __init__(self, kernel: KernelModel, last: int = 10_000) -> None:
        self._kernel, self._left = kernel, last

    def perform(self, job: Job) -> Row:
        if not self._left:
            raise KeyboardInterrupt
        self._left -= 1
        wrong = differs(job.scenario, self._kernel)
        item = ItemRow(0, "f[0]", Access.READ, 3, True, False, (Outcome.TOKEN,), Count(0, 0), (Outcome.TOKEN,),
                       Reader.VCPU, not wrong, 0)  # fmt: skip
        findings = (Finding("item", "another outcome"),) if wrong else ()
        status = Status.FAIL if wrong else Status.PASS
        verdict = Verdict(scenario=job.scenario.id, status=status, reason="item", items=(item,), findings=findings)
        return job.row(verdict, 1.0)


def differs(scenario: Scenario, wrong: KernelModel) -> bool:
    return _differs(replace(build_plan(scenario, 1), scenario="", title=""), wrong)


@functools.cache
def _differs(plan: Plan, wrong: KernelModel) -> bool:
    """Under whatever name: what disagrees is repeated ten times."""
    if wrong == SOUND:
        return False
    try:
        pairs = zip(predict(plan, SOUND).items, predict(plan, wrong).items, strict=True)
    except ModelError:
        return False
    return any(a.outcome is not b.outcome for a, b in pairs)


def on(monkeypatch: pytest.MonkeyPatch, kernel: WrongKernel, results: Path) -> Request:
    @contextmanager
    def start(*_: object) -> Iterator[WrongKernel]:
        yield kernel

    monkeypatch.setattr(one_performer, "start_worker", start)
    return Request(results=results, hosts=1)


@pytest.mark.long
def test_a_disagreement_is_made_small_and_told_with_what_repeats_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    request = on(monkeypatch, WrongKernel(WRONG), tmp_path)
    found, folder = explore(ExploreOrder(seed=3, first=11, plans=6, tries=60, generation=5), request, Listener(""))
    assert len(found.plans) == 6
    assert found.disagreed
    assert found.exit_code == 1
    (small,) = found.shrunk
    (scenario,) = load_text(small.file, Path(small.file).read_text())
    assert differs(scenario, WRONG)
    assert (small.rule, small.showed, small.repeats) == ("item", 10, 10)
    assert scenario.id in small.command
    assert len(scenario.steps) < len(load_text("x", _scenario_of(folder, small.name))[0].steps) or small.tried < 3
    told = json.loads((folder / "explore.json").read_text())
    assert [plan["name"] for plan in told["plans"]] == [plan.name for plan in found.plans]


def _scenario_of(folder: Path, name: str) -> str:
    return next(folder.glob(f"{name}+*/scenario.toml")).read_text()


def test_a_sound_kernel_agrees_and_its_captures_go(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    request = on(monkeypatch, WrongKernel(SOUND), tmp_path)
    found, folder = explore(ExploreOrder(seed=3, plans=4), request, Listener(""))
    assert [plan.judged.agreement for plan in found.plans] == [Agreement.EXACT] * 4
    assert found.exit_code == 0
    assert not list(folder.glob("x*+*"))


def test_ctrl_c_keeps_what_was_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    request = on(monkeypatch, WrongKernel(WRONG, last=3), tmp_path)
    found, folder = explore(ExploreOrder(seed=3, plans=10), request, Listener(""))
    assert found.interrupted
    assert found.exit_code == 130
    assert len(found.plans) == 3
    assert len(json.loads((folder / "explore.json").read_text())["plans"]) == 3


def test_what_cannot_be_predicted_is_counted_and_not_performed() -> None:
    scenarios = Scenarios(ExploreOrder(seed=3, generation=5), Request())
    chosen = [scenarios.at(n) for n in range(8)]
    assert len({s.id for s in chosen}) == 8
    assert scenarios.refused, "some never end"
    assert {r.name for r in scenarios.refused}.isdisjoint(s.id for s in chosen)
    assert all(not scenarios.refuses(s) for s in chosen)


def test_a_scenario_that_comes_by_a_point_of_the_kernel_is_new() -> None:
    scenarios = Scenarios(ExploreOrder(seed=3), Request())
    first, second = (scenarios.at(n).id for n in range(2))
    for name in (first, second, first, second):
        scenarios.is_new(name)
    assert not scenarios.is_new(second)
    scenarios.came_by(first, {1001, 1002})
    scenarios.came_by(second, {1002})
    assert scenarios.is_new(first)
    assert not scenarios.is_new(second)  # what it comes by, the first did
    scenarios.came_by(second, {1003})
    assert scenarios.is_new(second)


def test_one_kernel_at_a_time() -> None:
    with pytest.raises(UsageError, match="one kernel"):
        Scenarios(ExploreOrder(seed=1), Request(kernels=("debian-6.1", "noio-6.1")))
