# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page tells of trials is read back as it was written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from harness.judge.verdict_types import Finding, Verdict
from harness.report.mutants_text import MutantLine, mutants_page
from harness.results import Key, Row
from harness.run.mutant_trials import Mutant, Trial
from harness.run.mutants_told import scenario_digest, trials_told
from harness.status import Status
from tests.unit.scenarios import all_scenarios

SCENARIOS = all_scenarios()
MADE = "linux-source-6.1 6.1.192-1 with the points 0123456789ab"
FIRST = Mutant("f: i < k | j negated", 1000, "virt/f.c:7", "f", (), ("D05", "item"))
TWIN = replace(FIRST, number=1001)
LONG = Mutant(f"g: {'x' * 200} zero", 1002, "mm/g.c:9", "g", (), ("total:GP",))
MUTANTS = (FIRST, TWIN, LONG)


def trial(mutant: Mutant, scenario: str, status: Status, *names: str, at_go: bool = False) -> Trial:
    found = tuple(Finding(rule, "", about=about) for rule, _, about in (n.partition(":") for n in names))
    key = Key(mutant.id_under(scenario, at_go), "points")
    row = Row(key, Verdict(scenario=key.scenario, status=status, findings=found))
    return Trial(mutant, scenario, row, at_go=at_go)


def cell(told: Trial) -> str:
    assert told.row is not None
    if not told.caught:
        return told.row.status.value
    return f"{told.row.status} ({told.rule}{'' if told.named else ', not named'})"


def page_of(trials: Sequence[Trial], digests: Mapping[str, str] | None = None, made: str = MADE) -> str:
    lines = [
        MutantLine(m.name, m.number, m.about, m.imitates,
                   tuple((t.shown_as, cell(t)) for t in trials if t.mutant is m), "caught", "", 2)
        for m in MUTANTS
    ]  # fmt: skip
    now = {name: scenario_digest(s) for name, s in SCENARIOS.items()} if digests is None else digests
    return "# Mutants\n\n" + "\n".join(mutants_page("points", "apf mutants", lines, (), made, now)) + "\n\n## other\n"


def told(page: str, made: str = MADE) -> list[Trial]:
    return trials_told(page, "points", made, MUTANTS, SCENARIOS.values())


ALL = (
    trial(FIRST, "S23", Status.PASS),
    trial(FIRST, "S24", Status.FAIL, "D05", "item:outcome"),
    trial(TWIN, "S29", Status.FAIL, "D07"),
    trial(LONG, "S23", Status.INCONCLUSIVE),
    trial(LONG, "S23", Status.FAIL, "total:GP", at_go=True),
    trial(LONG, "S29", Status.ERROR, at_go=True),
)


def test_what_was_written_is_read_back() -> None:
    found = told(page_of(ALL))
    assert found == [*ALL]
    assert [t.naming for t in found] == [(), ("D05", "item:outcome"), (), (), ("total:GP",), ()]


def test_of_another_kernel_nothing_is_known() -> None:
    assert told(page_of(ALL), "linux-source-6.1 6.1.193-1 with the points 0123456789ab") == []
    assert told(page_of(ALL, made="")) == []
    assert trials_told(page_of(ALL), "other", MADE, MUTANTS, SCENARIOS.values()) == []


def test_a_scenario_that_has_changed_since_is_another_one() -> None:
    then = {name: scenario_digest(s) for name, s in SCENARIOS.items()} | {"S23": "00000000"}
    assert {t.scenario for t in told(page_of(ALL, then))} == {"S24", "S29"}
    assert told(page_of(ALL, {})) == []


def test_what_a_scenario_is_called_is_not_what_it_does() -> None:
    one = SCENARIOS["S23"]
    assert scenario_digest(replace(one, title="other words", why="", tags=("x",), deadline_s=7)) == scenario_digest(one)
    assert scenario_digest(replace(one, steps=one.steps[:1] * 2)) != scenario_digest(one)


def test_nobody_can_say_how_far_an_undecided_one_came_unless_one_at_go_follows() -> None:
    assert told(page_of((trial(FIRST, "S23", Status.ERROR), trial(FIRST, "S24", Status.PASS)))) == [
        trial(FIRST, "S24", Status.PASS)
    ]
