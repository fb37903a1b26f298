# SPDX-License-Identifier: GPL-2.0-or-later
"""compare, validate, bisect-step and mutants as a person meets them, as far as that needs no host."""

from __future__ import annotations

import argparse
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.cli import compare, mutants, parser, validate
from harness.results import Key, Row, RunResult
from harness.run import compare_kernels
from harness.run.bisect import question
from harness.run.judge_folder import judge_folder
from harness.run.mutant_catalog import Mutant, load_mutants
from harness.run.mutant_trials import Trial
from harness.run.request import Request
from harness.status import Status
from tests.unit.cli.command import Called, one_message
from tests.unit.rows import row_of
from tests.unit.scenarios import all_scenarios

DATA = Path(__file__).parents[2] / "data"
PATCH = "--- a/mm/memory.c\n+++ b/mm/memory.c\n@@ -1 +1 @@\n-x\n+y\n"


@pytest.mark.parametrize(
    "words",
    [
        ["compare", "stock-6.1", "stock-6.1"],
        ["compare", "stock-6.1", "no-such-kernel"],
        ["compare", "stock-6.1", "noio-6.1", "no-such-scenario"],
        ["validate", "--patch", "no-such.patch"],
        ["validate", "--patch", "a.patch", "--base", "debian-6.1"],
        ["validate", "--patch", "empty.patch"],
        ["validate", "--patch", "words.patch", "S23"],
        ["validate", "--patch", "a.patch", "no-such-scenario"],
        ["validate", "--patch", "a.patch", "--base", "no-such-kernel"],
        ["validate", "--tree", "/no/such/tree"],
        ["validate", "--tree", "."],
        ["mutants", "NO_SUCH_MUTANT"],
    ],
)
def test_bad_input_is_one_message_and_leaves_nothing(tmp_path: Path, called: Called, words: list[str]) -> None:
    files = {"a.patch": PATCH, "empty.patch": "", "words.patch": "From: me\n\nNothing is changed here.\n"}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    one_message(called(*words), 2)
    assert {path.name for path in tmp_path.iterdir()} == set(files)


def test_a_scenario_after_a_patch_is_a_scenario(tmp_path: Path) -> None:
    words = ["validate", "--patch", "a.patch", "--patch", "b.patch", "S29", "S23"]
    args = parser(("validate",)).parse_args(words)
    assert (args.patch, args.scenario) == ([Path("a.patch"), Path("b.patch")], ["S29", "S23"])


def test_a_patch_or_a_tree_is_needed(called: Called) -> None:
    assert called("validate").returncode == 2
    assert called("validate", "--patch", "a", "--tree", "b").returncode == 2


def test_a_revision_that_was_skipped_is_skipped_again(tmp_path: Path, called: Called) -> None:
    """125 is what git takes for "skip"."""
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example", "-C", str(tmp_path)]
    for name in ("Kconfig", "Makefile"):
        (tmp_path / name).write_text("x\n")
    subprocess.run([*git, "init", "-q"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "x"], check=True)
    head = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True).stdout.strip()
    state, about = tmp_path / ".git/apf-bisect.json", question([all_scenarios()["S23"]], "nowait")
    for text, code in (
        ('"verdicts": {}, "skipped": {"%s": "it does not build"}', 125),
        ('"verdicts": {"%s": ["FAIL"]}, "skipped": {}', 1),
        ('"verdicts": {"%s": ["PASS"]}, "skipped": {}', 0),
    ):
        state.write_text(f'{{"about": "{about}", ' + text % head + "}")
        done = called("bisect-step", "--tree", str(tmp_path), "S23")
        assert done.returncode == code, done.stdout + done.stderr


def test_mutants_are_listed_without_a_host(called: Called) -> None:
    done = called("mutants", "--list")
    assert done.returncode == 0
    assert len(done.stdout.splitlines()) == len(load_mutants())


def leave(request: Request, observer: object, *, status: Status = Status.PASS) -> tuple[RunResult, Path]:
    """What a run of S23 and S29 on both kernels leaves, from captures of real runs."""
    folder = request.results / "run"
    rows = []
    for kernel, source in zip(request.kernels, ("captures", "captures-noio"), strict=True):
        for scenario in ("S23", "S29"):
            key = Key(scenario, kernel)
            shutil.copytree(DATA / source / scenario, folder / key.folder / "capture")
            shutil.copy(DATA / source / scenario / "plan.json", folder / key.folder)
            verdict = judge_folder(folder / key.folder / "capture", request.kernel(kernel).variant)
            rows.append(Row(key, replace(verdict, status=status)))
    return RunResult("run", request.command, tuple(r.key for r in rows), tuple(rows)), folder


def command(module: object, words: list[str]) -> int:
    """A command in this process, so that what performs its scenarios can be replaced."""
    parser = argparse.ArgumentParser()
    module.add(parser.add_subparsers())  # type: ignore[attr-defined]
    args = parser.parse_args(words)
    return int(args.func(args))


def test_compare_prints_and_leaves_the_differences(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(compare_kernels, "run", leave)
    assert command(compare, ["compare", "debian-6.1", "noio-6.1", "--results", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert "outcome of items 0-23: A sync, B token  (as the models say)" in said
    assert "debian-6.1 against noio-6.1: too few times to compare of fault to token" in said
    assert "X2" in (tmp_path / "run/compare.txt").read_text()
    assert (tmp_path / "run/compare.json").exists()


def test_what_an_interrupted_comparison_left_out_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(request: Request, observer: object) -> tuple[RunResult, Path]:
        result, folder = leave(request, observer)
        left = [Key(f"S{n}", kernel) for kernel in request.kernels for n in range(300, 312)]
        return replace(result, planned=(*result.planned, *left), interrupted=True), folder

    monkeypatch.setattr(compare_kernels, "run", interrupted)
    assert command(compare, ["compare", "debian-6.1", "noio-6.1", "--results", str(tmp_path)]) == 130
    lines = [line for line in capsys.readouterr().out.splitlines() if "not compared" in line]
    names = ", ".join(f"S{n}" for n in range(300, 308))
    assert lines == [f"not compared, because not performed on both: {names} and 4 more"]


@pytest.mark.long
def test_compare_with_the_models_the_wrong_way_round_is_red(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The captures of noio under the name of a kernel that is not noio."""
    monkeypatch.setattr(compare_kernels, "run", leave)
    assert command(compare, ["compare", "debian-6.1", "stock-6.1", "--results", str(tmp_path)]) == 1


def test_validate_prints_a_mail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    patch = tmp_path / "0001-noio.patch"
    patch.write_text(PATCH)
    monkeypatch.setattr(compare_kernels, "run", leave)
    monkeypatch.setattr(validate, "make_first", lambda *_: None)
    words = ["validate", "--patch", str(patch), "--variant", "noio", "--results", str(tmp_path / "r")]
    assert command(validate, words) == 0
    mail = (tmp_path / "r/run/validate.txt").read_text()
    assert mail in capsys.readouterr().out
    assert "0001-noio.patch" in mail and "2 behave differently, 0 not as the models say" in mail


@pytest.mark.long
def test_validate_of_a_patch_that_changes_behaviour_against_the_model_is_red(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without --variant the patched kernel is judged as what its base is."""
    patch = tmp_path / "0001-noio.patch"
    patch.write_text(PATCH)
    monkeypatch.setattr(compare_kernels, "run", leave)
    monkeypatch.setattr(validate, "make_first", lambda *_: None)
    assert command(validate, ["validate", "--patch", str(patch), "--results", str(tmp_path / "r")]) == 1
    assert "2 not as the models say" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("control", "mutant", "troubles", "code"),
    [
        (Status.PASS, "D15: named", [], 0),
        (Status.PASS, "D15: named", ["bigbox is not as before"], 3),
        (Status.PASS, "D05: another", ["bigbox is not as before"], 1),
        (Status.PASS, "D05: another", [], 1),
        (Status.PASS, Status.PASS, [], 1),
        (Status.PASS, Status.INCONCLUSIVE, [], 1),
        (Status.FAIL, "D15: named", [], 1),
    ],
)
def test_mutants_are_green_when_all_are_caught_by_name_and_the_control_is_green(
    control: Status, mutant: Status | str, troubles: list[str], code: int, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    (one,) = load_mutants()[:1]

    def trial_of(mutated: Mutant | None, said: Status | str) -> Trial:
        status = said if isinstance(said, Status) else Status.FAIL
        return Trial(mutated, "S23", row_of(Key("S23", "mutants-6.1"), status, str(said)))

    def tried(*_args: object) -> SimpleNamespace:
        trials = [trial_of(None, control), trial_of(one, mutant)]
        done = {"try_unmutated": lambda *_: True, "try_mutants": lambda *_, **__: True}
        return SimpleNamespace(trials=trials, folders=[tmp_path], troubles=troubles, **done)

    monkeypatch.setattr(mutants, "kernel", lambda *_: SimpleNamespace(bzimage=tmp_path / "bzImage", identity=""))
    monkeypatch.setattr(mutants, "MutantTrials", tried)
    assert command(mutants, ["mutants", one.name, "--results", str(tmp_path)]) == code
    words = {"D15: named": "1 caught", "D05: another": "1 caught otherwise", Status.INCONCLUSIVE: "1 undecided"}
    said = capsys.readouterr().out
    assert f"1 mutants: {words.get(mutant, '1 SURVIVED')}\n" in said and all(line in said for line in troubles)
    assert (tmp_path / "mutants.txt").exists() and (tmp_path / "mutants.json").exists()
