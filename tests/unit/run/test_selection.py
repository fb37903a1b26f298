# SPDX-License-Identifier: GPL-2.0-or-later
"""Which scenarios a pattern means, and the jobs of a run."""

from __future__ import annotations

import pytest

from harness.errors import ScenarioError, UsageError
from harness.run.scenario_sources import ScenarioFiles
from harness.run.selection import choose, plan_jobs, select
from harness.scenario.load import Refusal
from harness.scenario.schema import Scenario

ALL = (
    Scenario("S20", "a", tags=("smoke",)),
    Scenario("S23", "b", tags=("smoke", "swap"), repeats=3),
    Scenario("S24/page_cluster=1", "c"),
    Scenario("S24/page_cluster=2", "d", variants=("noio",)),
)


@pytest.mark.parametrize(
    ("patterns", "ids"),
    [
        ([], ["S20", "S23", "S24/page_cluster=1", "S24/page_cluster=2"]),
        (["S23", "S20"], ["S20", "S23"]),
        (["S2?"], ["S20", "S23", "S24/page_cluster=1", "S24/page_cluster=2"]),
        (["S24"], ["S24/page_cluster=1", "S24/page_cluster=2"]),
        (["S24/*=2"], ["S24/page_cluster=2"]),
        (["tag:swap"], ["S23"]),
        (["S20", "tag:smoke"], ["S20", "S23"]),
    ],
)
def test_select(patterns: list[str], ids: list[str]) -> None:
    assert [s.id for s in select(ALL, patterns)] == ids


@pytest.mark.parametrize("pattern", ["S99*", "s20", "tag:none", ""])
def test_a_pattern_that_means_nothing_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError):
        select(ALL, ["S20", pattern])


def test_what_stands_apart_is_performed_when_it_is_named() -> None:
    apart = Scenario("S99", "e", tags=("linux", "apart"))
    assert apart not in select((*ALL, apart), [])
    for pattern in ("S99", "S9*", "tag:linux", "tag:apart"):
        assert select((*ALL, apart), [pattern]) == (apart,)


def test_near_misses_are_named() -> None:
    with pytest.raises(UsageError) as caught:
        select(ALL, ["S2O"])
    assert "S20" in caught.value.hint


BAD = (Refusal("d/x.toml", "S90", "d/x.toml: $.why: no", ("swap",)), Refusal("d/y.toml", "y", "d/y.toml: not TOML"))


@pytest.mark.parametrize(
    ("patterns", "ids", "refused", "others"),
    [
        ([], ["S20", "S23", "S24/page_cluster=1", "S24/page_cluster=2"], ["S90", "y"], []),
        (["S20"], ["S20"], [], ["S90", "y"]),
        (["S20", "S90"], ["S20"], ["S90"], ["y"]),
        (["tag:swap"], ["S23"], ["S90"], ["y"]),
        (["y", "S23"], ["S23"], ["y"], ["S90"]),
    ],
)
def test_a_bad_file_takes_only_its_own_scenarios_away(
    patterns: list[str], ids: list[str], refused: list[str], others: list[str]
) -> None:
    chosen = choose(ScenarioFiles(ALL, BAD), patterns)
    assert [s.id for s in chosen.scenarios] == ids
    assert ([r.id for r in chosen.refused], [r.id for r in chosen.others]) == (refused, others)


def test_where_nothing_is_left_it_is_said_why() -> None:
    with pytest.raises(ScenarioError, match="not TOML"):
        choose(ScenarioFiles(ALL, BAD), ["y"])
    with pytest.raises(ScenarioError, match=r"why: no\n.*not TOML"):
        choose(ScenarioFiles((), BAD), [])
    with pytest.raises(UsageError, match="S99"):
        choose(ScenarioFiles(ALL, BAD), ["S20", "S99"])


def test_jobs_kernel_by_kernel_with_repeats_and_variants() -> None:
    jobs = plan_jobs(ALL, {"debian-6.1": "nowait", "noio-6.1": "noio"})
    assert [str(j.key) for j in jobs] == [
        "S20 on debian-6.1",
        "S23 on debian-6.1",
        "S23 on debian-6.1 (repeat 2)",
        "S23 on debian-6.1 (repeat 3)",
        "S24/page_cluster=1 on debian-6.1",
        "S20 on noio-6.1",
        "S23 on noio-6.1",
        "S23 on noio-6.1 (repeat 2)",
        "S23 on noio-6.1 (repeat 3)",
        "S24/page_cluster=1 on noio-6.1",
        "S24/page_cluster=2 on noio-6.1",
    ]
    assert len(plan_jobs(ALL, {"debian-6.1": "nowait"}, repeats=2)) == 6


def test_nothing_to_do_is_an_error() -> None:
    with pytest.raises(UsageError):
        plan_jobs(ALL[3:], {"debian-6.1": "nowait"})


def test_two_that_would_share_a_folder_are_refused() -> None:
    with pytest.raises(UsageError, match="share the folder"):
        plan_jobs((Scenario("a/b", ""), Scenario("a_b", "")), {"k": "nowait"})
