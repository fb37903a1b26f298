# SPDX-License-Identifier: GPL-2.0-or-later
"""The words of the host program are those of its source, and its lines are read as it writes them."""

from __future__ import annotations

import re

import pytest

from harness.artifacts.layout import REPRODUCERS
from harness.contract.host_program import (
    AREA_PROGRAM,
    GUEST_PROGRAM,
    HOST_PROGRAMS,
    NESTED_PROGRAM,
    SHORT_PROGRAM,
    SKIPPED,
    WAYS_PROGRAM,
    AreaCase,
    AreaChange,
    Between,
    Found,
    GuestCase,
    HaltCase,
    HaltCause,
    OddGuest,
    RunsAgain,
    StateChange,
    TokenCase,
    Told,
    Written,
    cases,
    results,
    sentence,
)
from harness.errors import UsageError


def read(name: str) -> str:
    """A source with the header of ours that it includes."""
    text = (REPRODUCERS / name).read_text()
    return "".join(map(read, re.findall(r'^#include "([^"]+)"', text, re.MULTILINE))) + text


SOURCES = {name: read(f"{name}.c") for name in HOST_PROGRAMS}


def words(array: str, program: str = WAYS_PROGRAM) -> list[str]:
    found = re.search(rf"{array}\[\] = \{{([^}}]*)\}};", SOURCES[program])
    assert found is not None
    return re.findall(r'"([^"]+)"', found[1])


def test_the_words_are_those_of_the_source() -> None:
    assert words("cause_names") == list(HaltCause)
    assert words("way_names") == list(StateChange)
    assert words("outcome_names") == list(RunsAgain)
    assert all(f"#define KSFT_SKIP {SKIPPED}" in source for source in SOURCES.values())
    assert sorted(p.stem for p in REPRODUCERS.glob("*.c")) == list(HOST_PROGRAMS)


def test_the_words_of_the_short_one() -> None:
    short = cases(SHORT_PROGRAM, "")
    assert [str(case) for case in short] == [f"off {way}" for way in words("way_names", SHORT_PROGRAM)]
    assert words("outcome_names", SHORT_PROGRAM) == list(RunsAgain)


def test_the_words_of_the_nested_one() -> None:
    assert words("between_names", NESTED_PROGRAM) == list(Between)
    assert words("outcome_names", NESTED_PROGRAM) == list(Told)
    intercepts = words("intercept_names", NESTED_PROGRAM)
    assert [str(case) for case in cases(NESTED_PROGRAM, "")] == [
        f"{b} {i}" for b in [*Between][:-8] for i in intercepts
    ]
    assert cases(NESTED_PROGRAM, "exit") == (TokenCase(Between.EXIT, intercept=False),)
    assert cases(NESTED_PROGRAM, "unpaged") == (TokenCase(Between.UNPAGED, intercept=True),)
    assert cases(NESTED_PROGRAM, "own-fault") == (TokenCase(Between.OWN_FAULT, intercept=True),)
    assert cases(NESTED_PROGRAM, "nmi") == (TokenCase(Between.NMI, intercept=True),)
    assert cases(NESTED_PROGRAM, "shadow") == (TokenCase(Between.SHADOW, intercept=False),)
    assert cases(NESTED_PROGRAM, "acked") == (TokenCase(Between.ACKED, intercept=False),)
    assert cases(NESTED_PROGRAM, "inject") == (TokenCase(Between.INJECT, intercept=False),)
    case = TokenCase(Between.STATE, intercept=False)
    assert sentence(case, Told.TO_L2) == "state no-intercept: the token is given to L2"
    assert results(f"not ok 5 - {sentence(case, Told.TO_L2)}\n") == ((case, Told.TO_L2),)
    assert results("not ok 1 - nothing intercept: the token is odd, KVM_RUN 5, reason 17\n") == (
        (TokenCase(Between.NOTHING, intercept=True), Told.ODD),
    )


def test_the_words_of_the_one_about_the_area() -> None:
    assert words("change_names", AREA_PROGRAM) == list(AreaChange)
    assert words("written_names", AREA_PROGRAM) == list(Written)
    assert [str(case) for case in cases(AREA_PROGRAM, "")] == [f"area {change}" for change in [*AreaChange][:-8]]
    for change in [*AreaChange][-8:]:
        assert cases(AREA_PROGRAM, change) == (AreaCase(change),)
    case = AreaCase(AreaChange.LOGGED)
    assert results(f"not ok 3 - {sentence(case, Written.NOT_LOGGED)}\n") == ((case, Written.NOT_LOGGED),)
    with pytest.raises(UsageError, match="no area"):
        results("ok 1 - cpl0 moved: the wake-all is written there\n")
    with pytest.raises(UsageError, match="takes no arguments"):
        cases(AREA_PROGRAM, "all")


def test_the_words_of_the_one_about_unusual_guests() -> None:
    assert words("kind_names", GUEST_PROGRAM) == list(OddGuest)
    assert words("found_names", GUEST_PROGRAM) == list(Found)
    case = GuestCase(OddGuest.ROM_PAGE)
    assert cases(GUEST_PROGRAM, "rom-page") == (case,)
    assert results(f"ok 1 - {sentence(case, Found.WAITED)}\n") == ((case, Found.WAITED),)
    for wrong in ("", "all", "ring1 logged"):
        with pytest.raises(UsageError, match="takes one of"):
            cases(GUEST_PROGRAM, wrong)
    with pytest.raises(UsageError, match="no guest"):
        results("ok 1 - cpl0 ring1: the page is waited for\n")


def test_what_it_tests() -> None:
    everything = cases(WAYS_PROGRAM, "all")
    assert len(set(everything)) == len(everything) == len(HaltCause) * (len(StateChange) - 14)
    assert cases(WAYS_PROGRAM, "off tick") == (HaltCase(HaltCause.OFF, StateChange.TICK),), "not among all"
    assert cases(WAYS_PROGRAM, "off in-service") == (HaltCase(HaltCause.OFF, StateChange.IN_SERVICE),)
    assert everything[1] == HaltCase(HaltCause.OFF, StateChange.RESET)
    assert cases(WAYS_PROGRAM, "cpl0 en0") == (HaltCase(HaltCause.CPL0, StateChange.EN0),)
    for wrong in ("none", "cpl0", "en0 cpl0", "all all"):
        with pytest.raises(UsageError):
            cases(WAYS_PROGRAM, wrong)
    with pytest.raises(UsageError, match="takes no arguments"):
        cases(NESTED_PROGRAM, "all")


def test_its_lines() -> None:
    said = (
        "TAP version 13\n1..3\nok 1 - cpl0 mpstate: the vCPU runs with its page\n"
        "not ok 2 - off reset: the vCPU runs never\nnot ok 3 - off nmi: the vCPU runs odd, exit reason 8\n"
    )
    assert results(said) == (
        (HaltCase(HaltCause.CPL0, StateChange.MPSTATE), RunsAgain.WITH_PAGE),
        (HaltCase(HaltCause.OFF, StateChange.RESET), RunsAgain.NEVER),
        (HaltCase(HaltCause.OFF, StateChange.NMI), RunsAgain.ODD),
    )
    for wrong in (
        "ok 1 - off reset",
        "ok 1 - off elsewhere: the vCPU runs never",
        "ok 1 - off nmi: the vCPU runs away",
        "ok 1 - signal nmi: the token is told to L1",
        "ok 1 - signal intercept: the token is never",
    ):
        with pytest.raises(UsageError):
            results(wrong)
