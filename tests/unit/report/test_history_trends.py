# SPDX-License-Identifier: GPL-2.0-or-later
"""What many nights say together: changes, streaks, flakiness, and what is not run any more."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from harness.report.history_text import mail_text, night_text, subject_line
from harness.report.history_trends import (
    Night,
    NightRun,
    NightVerdict,
    bad_streak,
    flaky_of,
    night_of,
)
from harness.status import Status


def verdict(night: int, status: Status, scenario: str = "S23", *, build: str = "b1", repeat: int = 1) -> NightVerdict:
    return NightVerdict(
        run=f"run{night}", began=f"2026-11-{night:02}T02:00:00", scenario=scenario, kernel="debian-6.1",
        host="virtual", status=status, green=status is Status.PASS, reason="" if status is Status.PASS else "D05: lost",
        build=build, folder=f"/r/run{night}/{scenario}+debian-6.1+{repeat}",
    )  # fmt: skip


def run(night: int, *, code: int = 0, command: str = "apf run") -> NightRun:
    return NightRun(f"run{night}", f"2026-11-{night:02}T02:00:00", "virtual", command, code, 60.0, 0)


def nights(*statuses: str, builds: str = "") -> list[NightVerdict]:
    """One scenario, a letter for each night: P green, F bad, - not run, B both (two repeats)."""
    found = []
    for n, letters in enumerate(statuses, 1):
        build = builds[n - 1] if builds else "b"
        words = {"P": [Status.PASS], "F": [Status.FAIL], "-": [], "B": [Status.PASS, Status.FAIL]}[letters]
        found += [verdict(n, status, build=build, repeat=r) for r, status in enumerate(words, 1)]
    return found


def test_a_streak_begins_after_the_last_green_run() -> None:
    streak = bad_streak(nights(*"PFPFFF"))
    assert streak is not None
    assert (streak.first.run, streak.last_green and streak.last_green.run, streak.verdicts) == ("run4", "run3", 3)
    assert bad_streak(nights(*"PFP")) is None
    never = bad_streak(nights(*"F-F"))
    assert never is not None and never.last_green is None and never.first.run == "run1"


def test_green_and_bad_in_one_run_is_bad() -> None:
    streak = bad_streak(nights(*"PBB"))
    assert streak is not None and streak.first.run == "run2" and streak.now.status is Status.FAIL


def test_one_step_is_no_flakiness() -> None:
    assert flaky_of(nights(*"PPFF")) is None
    assert flaky_of(nights(*"FFPP")) is None


def test_turns_on_one_build_are_and_have_a_rate() -> None:
    flaky = flaky_of(nights(*"PFPP"))
    assert flaky is not None and (flaky.bad, flaky.verdicts, flaky.rate) == (1, 4, 0.25)
    within = flaky_of(nights(*"PB"))
    assert within is not None and (within.bad, within.verdicts) == (1, 3)


def test_turns_with_the_kernel_are_not() -> None:
    assert flaky_of(nights(*"PFP", builds="xyz")) is None
    assert flaky_of(nights(*"PFPF", builds="xxyy")) is None


def test_a_night_against_the_ones_before() -> None:
    verdicts = [
        verdict(1, Status.PASS), verdict(1, Status.PASS, "S20"), verdict(1, Status.FAIL, "S60"),
        verdict(2, Status.FAIL, build="b2"), verdict(2, Status.PASS, "S60"), verdict(2, Status.PASS, "S70"),
    ]  # fmt: skip
    night = night_of([run(1, code=1), run(2, code=1)], verdicts, ["run2"])
    assert {(c.now.scenario, c.was and c.was.status, c.now.status) for c in night.changes} == {
        ("S23", Status.PASS, Status.FAIL), ("S60", Status.FAIL, Status.PASS), ("S70", None, Status.PASS),
    }  # fmt: skip
    assert [(s.now.scenario, s.first.run) for s in night.bad] == [("S23", "run2")]
    assert [v.scenario for v in night.gone] == ["S20"]
    assert not night.green
    text = night_text(night)
    assert text.startswith("apf 2026-11-02: 1 bad (1 new), 2 green\n")
    for told in (
        "S23 on debian-6.1: PASS -> FAIL", "with another kernel: b2, before b1", "D05: lost",
        "last green 2026-11-01T02:00, on another kernel:", "S60 on debian-6.1: FAIL -> PASS",
        "1 run for the first time, green", "Not run any more:\n  S20 on debian-6.1",
    ):  # fmt: skip
        assert told in text


def test_a_quiet_night_is_short() -> None:
    night = night_of([run(1), run(2)], [verdict(1, Status.PASS), verdict(2, Status.PASS)], ["run2"])
    assert night_text(night) == (
        "apf 2026-11-02: green, 1 scenarios\n\n2026-11-02T02:00 on virtual: green, 1 min\n  apf run\n"
    )


def test_troubles_are_no_green() -> None:
    bad = replace(run(1, code=3), troubles=("box is not as before: vm.swappiness",), missing=2)
    night = night_of([bad], [verdict(1, Status.PASS)], ["run1"])
    assert subject_line(night) == "apf 2026-11-01: 0 bad, 1 green, 3 troubles"
    assert "TROUBLE: box is not as before" in night_text(night)


def test_no_run() -> None:
    assert subject_line(night_of([], [], [])) == "apf: no run"
    assert not night_of([], [], []).green


def test_what_a_host_said_cannot_forge_a_mail() -> None:
    wild = replace(verdict(1, Status.FAIL), reason="x\x1b[2J\nBcc: a@b", scenario="S\x1b]0;t\x07\nBcc: c@d")
    text = mail_text(night_of([run(1, code=1)], [wild], ["run1"]), "me@here\nBcc: e@f", "you@there")
    head, _, body = text.partition("\n\n")
    assert "Bcc" not in [line.partition(":")[0] for line in head.splitlines()]
    assert "\x1b" not in text and "\x07" not in text
    assert body.startswith("apf 2026-11-01: 1 bad")


@given(st.lists(st.sampled_from("PF-B"), min_size=1, max_size=12), st.data())
def test_what_holds_of_every_history(letters: list[str], data: st.DataObject) -> None:
    builds = "".join(data.draw(st.lists(st.sampled_from("xy"), min_size=len(letters), max_size=len(letters))))
    verdicts = nights(*letters, builds=builds)
    runs = [run(n) for n, letter in enumerate(letters, 1)]
    night: Night = night_of(runs, verdicts, [runs[-1].run])
    last = letters[-1]
    assert bool(night.bad) is (last in "FB")
    if night.bad:
        streak = night.bad[0]
        between = [v for v in verdicts if streak.first.began <= v.began]
        assert streak.verdicts == len({v.run for v in between})
        assert all(any(not v.green for v in between if v.run == name) for name in {v.run for v in between})
        assert streak.last_green is None or streak.last_green.began < streak.first.began
    for flaky in night.flaky:
        assert 0 < flaky.bad < flaky.verdicts
    seen = [letter for letter in letters[:-1] if letter != "-"]
    if last in "PF" and seen and seen[-1] in "PF":
        assert bool(night.changes) is (seen[-1] != last)
    assert all(len(line) <= 78 or " " not in line.strip() for line in night_text(night).splitlines())
