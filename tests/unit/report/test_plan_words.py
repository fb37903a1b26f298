# SPDX-License-Identifier: GPL-2.0-or-later
"""Every scenario of the catalogue can be told in words, and nothing of its program is left out."""

from __future__ import annotations

import re

from harness.report.plan_words import plan_words
from tests.unit.report.judged import golden
from tests.unit.scenarios import all_scenarios, plan_of


def numbers(text: str) -> set[int]:
    found: set[int] = set()
    for low, high in re.findall(r"(\d+)(?:-(\d+))?", text):
        found |= set(range(int(low), int(high or low) + 1))
    return found


def test_each_item_of_each_scenario_is_in_its_vcpus_sentence() -> None:
    for name in all_scenarios():
        plan = plan_of(name)
        words = plan_words(plan)
        told = "\n".join(words)
        assert f"{plan.guest.vcpus} vCPU" in words[0]
        indices = numbers(" ".join(re.findall(r"\[([\d, -]+)\] ", told)))
        if "and " not in told or " more." not in told:
            assert {i.index for i in plan.items} <= indices, plan.scenario
        assert told.count("Stage ") >= len(plan.host_actions)
        assert told.count("ms after the guest was let go") == len(plan.timed)


def test_a_run_of_touches_is_one_step() -> None:
    evidence = golden("captures", "S29").evidence
    assert evidence is not None
    words = plan_words(evidence.plan)
    assert "vCPU 0: [0] read f[8]; [1] after 10 ms read f[8]." in words
    assert "f[0] to f[15] (16 pages): swapped." in words


def test_one_and_many_are_told_as_such() -> None:
    told = "\n".join("\n".join(plan_words(plan_of(name))) for name in all_scenarios())
    assert "a read ends when 1 repeated fault was seen" in "\n".join(plan_words(plan_of("S29")))
    assert not re.search(r"\b1 (?:repeated )?(?:faults|vCPU threads|vCPUs)\b", told)
    assert not re.search(r"\b(?:[2-9]|\d\d+) (?:repeated )?(?:fault|vCPU thread|vCPU)\b(?! (?:\d|threads))", told)


def test_apic_ids_are_told_where_they_have_gaps() -> None:
    assert "with 5 vCPUs (APIC ids 0, 1, 2, 4, 5) and" in plan_words(plan_of("S380"))[0]
    assert "APIC" not in plan_words(plan_of("S79"))[0]


def test_what_makes_an_access_is_told() -> None:
    told = "\n".join(plan_words(plan_of("S382")))
    assert "[0] write s[0] by the delivery of an interrupt; [1] write s[1] CPL0 IF=1 by" in told
    assert "write s[0] by the delivery of that token" in "\n".join(plan_words(plan_of("S383")))
