# SPDX-License-Identifier: GPL-2.0-or-later
"""apf doctor for a host: this machine, asked by the real agent; what is busy, and what is not there."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli.doctor import _scenarios
from harness.contract.capture import Facts
from harness.contract.host_needs import HostOffers
from harness.contract.structure import from_json
from harness.contract.words import GuestKind
from harness.run.host_examination import Check, Examination, ScenarioOnHost, held_against
from tests.unit.agent.conftest import root_only
from tests.unit.scenarios import all_scenarios, plan_of
from tests.unit.waiting import HANG_S

CAPTURE = Path(__file__).parents[2] / "data/captures-7.3/S29/facts.json"


def apf(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "harness.cli", "doctor", *words],
        capture_output=True,
        text=True,
        timeout=HANG_S,
        check=False,
    )


def test_scenarios_against_what_a_real_host_has() -> None:
    """The 7.3 host of a capture has no zswap parameter and no swap device of its own, which S29 does not need."""
    host = from_json(Facts, CAPTURE.read_text()).host
    offers = HostOffers(host, "QEMU 7.2", userfaultfd=True, memory_mib=1800, disk="/dev/vdb")
    plans = [plan_of(name) for name in all_scenarios()]
    found = {s.scenario: s for s in held_against(offers, plans)}
    assert len(found) == len(plans)
    assert found["S23"].lacks == ()
    poor = held_against(HostOffers(host, "", userfaultfd=False, memory_mib=100), plans)
    programs = {plan.scenario for plan in plans if plan.guest.kind is GuestKind.HOST_PROGRAM}
    assert {s.scenario for s in poor if not s.lacks} == programs


def test_reasons_are_told_together() -> None:
    lack = (("no nbd", "modprobe nbd"),)
    from_two = Examination(
        "ssh:box", (Check("a", True, "", "run"),),
        tuple(ScenarioOnHost(f"S{n}", lack if n < 2 else ()) for n in range(3)),
    )  # fmt: skip
    assert list(_scenarios(from_two)) == [
        "scenarios that can be performed on ssh:box: 1 of 3", "  no nbd  ->  modprobe nbd", "    S0, S1",
    ]  # fmt: skip
    told = json.loads(from_two.to_json())
    assert told["ok"] and [s["possible"] for s in told["scenarios"]] == [False, False, True]
    assert told["scenarios"][0]["lacks"] == [{"what": "no nbd", "remedy": "modprobe nbd"}]


def test_a_host_that_there_is_not(tmp_path: Path) -> None:
    done = apf("--host", "ssh:box", "--lab", str(tmp_path / "lab.toml"))
    assert done.returncode == 2
    assert "lab.toml: No such file" in done.stderr
    assert apf("--host", "shh:box").returncode == 2


def test_this_machine_as_json(tmp_path: Path) -> None:
    told = json.loads(apf("--json").stdout)
    assert told["host"] == "virtual" and {c["what"] for c in told["checks"]} >= {"memory", "cache folder"}


@root_only
@pytest.mark.usefixtures("host_settings")
def test_this_machine_as_a_host() -> None:
    done = apf("--host", "local", "--json", "--no-trial", "--wait", "200", "S23", "S115")
    told = json.loads(done.stdout)
    checks = {c["what"]: c for c in told["checks"]}
    if not checks["reached"]["ok"]:
        pytest.skip(checks["reached"]["found"])
    assert checks["reserved"]["ok"] and "kernel" in checks and checks["memory"]["ok"]
    assert [s["scenario"] for s in told["scenarios"]] == ["S115", "S23"]
    assert done.returncode == (0 if told["ok"] else 3)
