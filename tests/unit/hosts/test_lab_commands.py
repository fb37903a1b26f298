# SPDX-License-Identifier: GPL-2.0-or-later
"""Every command that takes a kernel, on a machine of the lab: a virtual host that runs the kernel with the mistakes
written by hand.  Run by ``make test-host``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from harness.artifacts.images import images
from harness.artifacts.store import Store
from harness.hosts.ssh import connect
from tests.unit.hosts.lab_machine import NAME, Lab, apf, start_lab
from tests.unit.hosts.machine_look import differs, look, prepare_looks
from tests.unit.run.matrix_page import cell, direct

pytestmark = pytest.mark.host

KERNEL = "mutants-6.1"
MUTANT = "TOKEN_ZERO"
"""Caught by S60, its first scenario."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """As it is found, it is left."""
    with start_lab(tmp_path_factory.mktemp("lab"), KERNEL) as started, connect(started.path, NAME) as machine:
        prepare_looks(machine, images.agent_zipapp(Store()))
        assert apf("doctor", *started.where, "--no-trial").returncode == 0  # makes the folder of runs
        before = look(machine)
        yield started
        assert not differs(before, look(machine))


def on(lab: Lab, folder: Path, *words: str, code: int = 0) -> str:
    """What a command says there."""
    done = apf(*words, *lab.where, "--results", str(folder))
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def matrix(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a matrix of one scenario: its results in "r", its page."""
    folder = tmp_path_factory.mktemp("matrix")
    said = on(lab, folder / "r", *matrix_words(folder))
    assert f"{NAME}: 1 of 1 scenarios to perform" in said
    return folder


def matrix_words(folder: Path) -> tuple[str, ...]:
    return ("matrix", "S60", "--output", str(folder / "page"))


def test_matrix_has_the_machine_as_its_column_and_performs_nothing_twice(lab: Lab, matrix: Path) -> None:
    page = (matrix / "page").read_text()
    assert cell(page, "S60", NAME) == direct("S60", "6.1")
    assert "to perform" not in on(lab, matrix / "r", *matrix_words(matrix))
    assert (matrix / "page").read_text() == page
    said = on(lab, matrix / "other", *matrix_words(matrix), "--kernels", "debian-6.1", code=3)
    assert f"{NAME} cannot boot another kernel: its kernel has no kexec" in said


def test_validate_against_a_baseline(lab: Lab, matrix: Path, tmp_path: Path) -> None:
    assert "S60" in on(lab, tmp_path, "validate", "S60", "--baseline", str(matrix / "r/latest"))


def test_mutants(lab: Lab, tmp_path: Path) -> None:
    said = on(lab, tmp_path, "mutants", MUTANT, "--no-control")
    assert "caught" in said and "S60" in said


def explore(lab: Lab, folder: Path, *words: str) -> Path:
    """The folder of the run; what it finds is another matter."""
    done = apf("explore", "--plans", "1", "--seed", "7", *words, *lab.where, "--results", str(folder))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return folder / "latest"


def test_explore(lab: Lab, tmp_path: Path) -> None:
    told = json.loads((explore(lab, tmp_path, "--shrink", "0") / "explore.json").read_text())
    assert told["kernel"] == NAME and len(told["plans"]) == 1


def test_the_hunt_for_a_mutant(lab: Lab, tmp_path: Path) -> None:
    (hunt,) = json.loads((explore(lab, tmp_path, "--mutants", MUTANT) / "mutants.json").read_text())["hunts"]
    assert hunt["mutant"] == MUTANT and hunt["scenarios"] == 1


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("compare", "debian-6.1", KERNEL, "S23"), "has one kernel"),
        (("validate", "--base", KERNEL, "--tree", "/nonexistent"), "nonexistent"),
        (("bisect-step", "S23"), "boots another kernel at each step"),
    ],
)
def test_what_needs_other_kernels_is_refused(words: tuple[str, ...], why: str, lab: Lab, tmp_path: Path) -> None:
    said = on(lab, tmp_path / "r", *words, code=128 if words[0] == "bisect-step" else 2)
    assert why in said and "Traceback" not in said
    assert not (tmp_path / "r").exists()
