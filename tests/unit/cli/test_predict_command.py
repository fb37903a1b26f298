# SPDX-License-Identifier: GPL-2.0-or-later
"""apf predict, through the command line's own entry point."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from harness.artifacts.catalog import load
from harness.cli import main
from harness.judge.verdict_types import Verdict
from harness.run.judge_folder import judge_folder
from harness.run.model_named import model_named
from tests.unit.judge.golden import CAPTURES


def test_says_outcome_reader_and_deciding_function(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "S23", "--kernel", "nowait-6.1"]) == 0
    out = capsys.readouterr().out
    assert "sync, read by the vCPU thread" in out
    assert "swap_readpage" in out
    assert "TRY" not in out, "totals that are 0 are not listed"
    assert main(["predict", "S23", "--kernel", "noio-6.1", "--events"]) == 0
    out = capsys.readouterr().out
    assert "token, read by a kworker" in out
    assert "NP token 0x1000 gpa 0x1000000" in out


def test_ranges_come_with_their_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """S28 without the step that waits for the worker."""
    hasty = tmp_path / "hasty.toml"
    before, _, after = Path("tests/scenarios/S28.toml").read_text().partition("[[steps]]\nhost")
    hasty.write_text(before + after.partition("\n")[2])
    assert main(["predict", str(hasty), "--kernel", "noio-6.1"]) == 0
    out = capsys.readouterr().out
    assert "block or token" in out
    assert "slow workers" in out


def test_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "S29", "S61", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert (first["scenario"], second["scenario"]) == ("S29", "S61")
    assert [i["outcome"] for i in first["items"]] == ["token", "no-fault", "repeated"]
    assert first["totals"]["REP"] == {"low": 1, "high": 1, "reason": ""}  # the gate decides when the read ends
    assert second["totals"]["NPh"]["low"] == 1
    assert {e["kind"] for e in second["events"]} >= {"PF", "TRY", "NP", "DONE", "RDY"}
    assert first["offered"] == ["ASYNC_PF", "ASYNC_PF_INT"]


@pytest.mark.parametrize(
    ("scenario", "kernel", "told"),
    [
        ("S146", "nowait-6.1", "(CPUID): ASYNC_PF, ASYNC_PF_VMEXIT, ASYNC_PF_INT\n"),
        ("S296", "noio-7.3", "(CPUID): ASYNC_PF\n"),
        ("S01", "nowait-5.10", "(CPUID): ASYNC_PF, ASYNC_PF_INT\n"),
        ("S01", "sync-6.1", "(CPUID): no async page faults\n"),
        ("S469", "nowait-6.1", ""),  # a program that is its own VMM
    ],
)
def test_says_what_the_guest_is_offered(
    scenario: str, kernel: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", scenario, "--kernel", kernel]) == 0
    out = capsys.readouterr().out
    assert told in out and ("is offered" in out) is bool(told)


def test_stable_levels_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "S84", "--kernel", "nowait:6.1.158"]) == 0
    assert "NEVER ENDS" in capsys.readouterr().out


@pytest.mark.parametrize("name", [k for k in load() if k.startswith(("debian-", "stock-", "noio-", "mutants-"))])
def test_names_of_the_catalogue_are_understood(name: str) -> None:
    model, entry = model_named(name), load()[name]
    assert model.variant == entry.variant
    assert name.endswith("-" + ".".join(map(str, model.release[:2])))


@pytest.mark.parametrize("argv", [["predict", "S23", "--kernel", "4.4"], ["predict", "S999"], ["predict", "no.toml"]])
def test_bad_input_is_exit_2_with_one_message(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv) == 2
    assert capsys.readouterr().err.startswith("apf: ")


def test_more_events_than_the_model_follows_are_told_with_the_scenario(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    """A timer of 1 us for an hour."""
    (tmp_path / "x.toml").write_text(
        'id = "X7"\ntitle = "t"\n[pages.f]\ngroups = 1\n'
        "[[steps]]\ntimer_us = 1\n[[steps]]\npause = true\npause_us = 4000000000\n"
    )
    assert main(["predict", str(tmp_path / "x.toml")]) == 2
    assert capsys.readouterr().err.startswith(f"apf: {tmp_path / 'x.toml'}: X7: more than")


def test_linux_guests(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", "S01", "S02", "--json"]) == 0
    boot, plain = json.loads(capsys.readouterr().out)
    assert boot["totals"]["RDY_ALL"]["low"] == boot["totals"]["RDY_ALL"]["high"] == 2
    assert boot["totals"]["TRY"]["high"] == 0
    assert plain["totals"]["NPt"]["high"] == plain["totals"]["RDY_ALL"]["high"] == 0
    assert plain["totals"]["NPh"]["low"] == 1


def test_a_host_reset_cuts_its_item_off_and_the_program_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "r.toml"
    file.write_text(
        'id = "R1"\ntitle = "t"\n[pages.f]\ngroups = 2\nstart = "populated"\n[[steps]]\ntouch = "f[0]"\n'
        '[[steps]]\nhost = [{do = "reset"}]\n[[steps]]\ntouch = "f[1]"\n'
    )
    assert main(["predict", str(file)]) == 0
    out = capsys.readouterr().out
    assert "cut off by the reset" in out
    assert "NEVER ENDS" not in out


@pytest.mark.parametrize("command", ["predict", "list", "run"])
def test_a_path_in_the_place_of_a_name_is_hinted_at(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, str(tmp_path)]) == 2
    assert f"--scenarios {tmp_path}" in capsys.readouterr().err


def test_a_file_is_a_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By itself, beside others, and beside names of the catalogue; what is wrong with one is told."""
    text = Path("tests/scenarios/S23.toml").read_text()
    for n in (1, 2):
        (tmp_path / f"{n}.toml").write_text(text.replace('"S23"', f'"X{n}"').replace("tags = [", 'tags = ["apart", '))
    one, two = str(tmp_path / "1.toml"), str(tmp_path / "2.toml")
    for given, ids in (([one], ["X1"]), ([one, two], ["X1", "X2"]), ([one, "S20"], ["S20", "X1"])):
        assert main(["list", *given]) == 0
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == ids
    (tmp_path / "1.toml").write_text("id = 1")
    for given in ([one], [one, "S20"]):
        assert main(["list", *given]) == 2
        assert capsys.readouterr().err.startswith(f"apf: {one}: ")


def test_what_the_model_cannot_say_comes_with_file_and_page(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "l.toml"
    file.write_text(
        'id = "L1"\ntitle = "t"\n[memory]\nbacking = "file"\n[pages.f]\ngroups = 1\nstart = "dropped"\n'
        '[[steps]]\ntouch = "f[0]"\n[[steps]]\nhost = [{do = "wait-done"}, {do = "lock-read", page = "f[0]"}]\n'
    )
    assert main(["predict", str(file)]) == 2
    assert f"{file}: L1: lock-read of f[0], which is in the page cache by then" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["predict", "--json", "S23", "X1"], ["list"]])
def test_a_bad_file_ends_nothing_but_its_own_scenario(
    command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "S23.toml").write_text(Path("tests/scenarios/S23.toml").read_text())
    (tmp_path / "X1.toml").write_text('id = "X1"\n')
    assert main([*command, "--scenarios", str(tmp_path)]) == 2
    told = capsys.readouterr()
    assert "S23" in told.out
    assert told.err.startswith(f"apf: {tmp_path / 'X1.toml'}: ")


def test_a_scenario_that_cannot_be_predicted_ends_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "x.toml").write_text(
        'id = "X7"\ntitle = "t"\n[pages.f]\ngroups = 1\n'
        "[[steps]]\ntimer_us = 1\n[[steps]]\npause = true\npause_us = 4000000000\n"
    )
    assert main(["predict", str(tmp_path / "x.toml"), "S23"]) == 2
    told = capsys.readouterr()
    assert told.out.startswith("S23 ") and "X7: more than" in told.err


def _a_run(tmp_path: Path) -> Path:
    folder = tmp_path / "run/S29+debian-6.1"
    shutil.copytree(CAPTURES / "S29", folder / "capture")
    (folder / "verdict.json").write_text(judge_folder(folder / "capture", "nowait").to_json())
    return folder


def test_a_run_is_held_against_what_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = _a_run(tmp_path)
    for given in (folder, folder.parent):
        assert main(["predict", "--seen", str(given), "--orders", "1"]) == 0
        assert "1 of 1 verdicts: 1 within what is said before a run, 0 not, 0 passed over" in capsys.readouterr().out
    verdict = Verdict.from_json((folder / "verdict.json").read_text())
    totals = tuple(replace(row, seen=40) if row.name == "NP" else row for row in verdict.totals)
    (folder / "verdict.json").write_text(replace(verdict, totals=totals).to_json())
    assert main(["predict", "--seen", str(folder), "--orders", "1"]) == 1
    out = capsys.readouterr().out
    assert f"{folder}: NP: said 0..1, seen 40" in out and "0 within what is said before a run, 1 not" in out


def test_what_cannot_be_held_against_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for words, said in (
        (["--seen", str(tmp_path)], "no folder of a run"),
        (["S23", "--seen", str(tmp_path)], "--seen has its scenarios and kernels from the folders"),
        (["--kernel", "noio-6.1", "--seen", str(tmp_path)], "--seen has its scenarios and kernels from the folders"),
        ([], "a scenario is needed, or --seen FOLDER"),
    ):
        assert main(["predict", *words]) == 2
        assert said in capsys.readouterr().err
