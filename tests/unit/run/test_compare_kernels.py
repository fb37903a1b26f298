# SPDX-License-Identifier: GPL-2.0-or-later
"""From a run's results to comparisons: real captures of both kernels, each judged once."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from harness.contract.plan import Plan, from_json
from harness.errors import UsageError
from harness.judge.verdict_types import Stage
from harness.model.kernels import Variant
from harness.results import Key, Row, RunResult
from harness.run.compare_kernels import compare_kernels, compare_results, compared_code, missing
from harness.run.judge_folder import judge_folder
from harness.run.request import Request
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.run.test_bad_luck import Listener

DATA = Path(__file__).parents[2] / "data"
VARIANTS = {"stock": Variant.NOWAIT, "noio": Variant.NOIO}


def results_of(*there: tuple[str, str], variants: Mapping[str, Variant] = VARIANTS) -> RunResult:
    keys = tuple(Key(s, k) for k in VARIANTS for s in ("S23", "S29"))
    rows = tuple(judged(key, variants[key.kernel]) for key in keys if (key.scenario, key.kernel) in there)
    return RunResult("r", "apf compare", keys, rows)


@functools.cache
def judged(key: Key, variant: Variant) -> Row:
    return Row(key, judge_folder(capture(key), variant))


def capture(key: Key) -> Path:
    return DATA / ("captures" if key.kernel == "stock" else "captures-noio") / key.scenario


def plan_of(key: Key) -> Plan:
    return from_json(Plan, (capture(key) / "plan.json").read_text())


BOTH = tuple((s, k) for s in ("S23", "S29") for k in VARIANTS)


def test_both_scenarios() -> None:
    result = results_of(*BOTH)
    found = compare_results(result, plan_of, "stock", "noio")
    assert [(c.scenario, c.green) for c in found] == [("S23", True), ("S29", True)]
    assert missing(result, found) == ()


def test_a_side_without_a_verdict_is_named() -> None:
    result = results_of(("S23", "stock"), ("S23", "noio"), ("S29", "stock"))
    found = compare_results(result, plan_of, "stock", "noio")
    assert [c.scenario for c in found] == ["S23"]
    assert missing(result, found) == ("S29",)


def test_nothing_compared_is_not_green() -> None:
    alone = results_of(("S23", "noio"))
    result = replace(alone, planned=(Key("S23", "noio"),))
    assert result.exit_code == 0 and compare_results(result, plan_of, "stock", "noio") == ()
    assert compared_code(result, ()) == 1
    assert missing(result, ()) == ("S23",), "whichever of the two it was planned for"
    both = results_of(*BOTH)
    assert compared_code(both, compare_results(both, plan_of, "stock", "noio")) == 0


def test_the_wrong_variant_is_not_green() -> None:
    result = results_of(("S23", "stock"), ("S23", "noio"), variants={"stock": Variant.NOWAIT, "noio": Variant.NOWAIT})
    (found,) = compare_results(result, plan_of, "stock", "noio")
    assert found.b.status is Status.FAIL and not found.green


@pytest.mark.parametrize("kernels", [("debian-6.1",), ("debian-6.1", "debian-6.1"), ("a", "b", "c")])
def test_two_different_kernels_are_needed(kernels: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two different kernels"):
        compare_kernels(Request(kernels=kernels, results=tmp_path / "results"), Listener(""))
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("status", "stage"),
    [
        (Status.UNSUPPORTED, Stage.PERFORM),
        (Status.INCONCLUSIVE, Stage.PERFORM),
        (Status.FAIL, Stage.BOOT),
        (Status.ERROR, Stage.JUDGE),
    ],
)
def test_what_was_not_judged_on_one_side_is_not_compared(status: Status, stage: Stage) -> None:
    result = results_of(*BOTH)
    rows = tuple(
        row_of(r.key, status, "no zswap", stage=stage) if r.key == Key("S23", "stock") else r for r in result.rows
    )
    result = replace(result, rows=rows)
    found = compare_results(result, plan_of, "stock", "noio")
    assert [c.scenario for c in found] == ["S29"]
    assert missing(result, found) == ("S23",)
