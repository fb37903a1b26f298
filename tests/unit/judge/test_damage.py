# SPDX-License-Identifier: GPL-2.0-or-later
"""No damage passes, none raises, and none blames the kernel that a kernel could not have done (damage.py).

A sample of the kinds by default; all of them with the marker "bench", and as a table by `make damage`.
"""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness.judge.verdict import judge_capture
from harness.model.kernels import find_kernel
from harness.status import Status
from tests.unit.judge.damage import attempt, captures, damages, kernel_of
from tests.unit.judge.damage_kind import JSON_FILES, NEEDED, Damage

CAPTURES = captures()
ALL = list(damages())
SAMPLE = random.Random(8).sample(range(len(ALL)), 60)


def on_some_capture(number: int) -> None:
    damage: Damage = ALL[number]
    names = list(CAPTURES)
    for name in names[number % len(names) :] + names[: number % len(names)]:
        trial = attempt(damage, name, CAPTURES[name])
        if trial is not None:
            assert trial.ok, f"{damage.name} on {name}: {trial.status}: {trial.reason}"
            return


def test_there_are_enough_kinds_and_no_two_alike() -> None:
    assert len(ALL) > 500 and len({damage.name for damage in ALL}) == len(ALL)


@pytest.mark.parametrize("name", list(CAPTURES))
def test_without_damage_each_capture_passes(name: str) -> None:
    verdict = judge_capture(CAPTURES[name], kernel_of(name))
    assert verdict.status is Status.PASS, (verdict.reason, verdict.findings)


@pytest.mark.parametrize("number", SAMPLE, ids=lambda n: ALL[n].name)
def test_a_damage_is_no_verdict_about_the_kernel(number: int) -> None:
    on_some_capture(number)


@pytest.mark.parametrize("number", [n for n, damage in enumerate(ALL) if ": guest.vcpus " in damage.name])
def test_a_number_of_vcpus_that_no_guest_has_fills_no_memory(number: int) -> None:
    on_some_capture(number)


@pytest.mark.bench
@pytest.mark.parametrize("number", range(len(ALL)), ids=lambda n: ALL[n].name)
def test_each_damage_is_no_verdict_about_the_kernel(number: int) -> None:
    on_some_capture(number)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(sorted(CAPTURES)),
    st.sampled_from(NEEDED),
    st.floats(0, 1),
    st.integers(0, 40),
    st.binary(max_size=24) | st.sampled_from([b"null", b"[]", b"1e999", b"-1", b"{}", b"true", b"\xff", b"[" * 5000]),
)
def test_whatever_the_bytes_the_judge_has_a_verdict(
    capture: str, name: str, at: float, length: int, new: bytes
) -> None:
    """Some bytes of one file are replaced by others: never an exception."""
    files = dict(CAPTURES[capture])
    if name not in files:
        return
    data = files[name]
    start = int(at * len(data))
    files[name] = data[:start] + new + data[start + length :]
    verdict = judge_capture(files, kernel_of(capture))
    assert verdict.status in (Status.PASS, Status.FAIL, Status.INCONCLUSIVE, Status.UNSUPPORTED, Status.ERROR)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(JSON_FILES), st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inside: st.lists(inside, max_size=3) | st.dictionaries(st.text(max_size=4), inside, max_size=3),
    max_leaves=6,
), st.data())  # fmt: skip
def test_whatever_stands_in_a_place_of_json(name: str, value: object, data: st.DataObject) -> None:
    files = dict(CAPTURES["S29 of today"])
    raw = json.loads(files[name])
    inner, key = raw, data.draw(st.sampled_from(sorted(raw)))
    while isinstance(inner[key], dict) and inner[key] and data.draw(st.booleans()):
        inner = inner[key]
        key = data.draw(st.sampled_from(sorted(inner)))
    inner[key] = value
    judge_capture({**files, name: json.dumps(raw).encode()}, find_kernel("nowait-6.1"))
