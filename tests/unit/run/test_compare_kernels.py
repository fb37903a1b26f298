# SPDX-License-Identifier: GPL-2.0-or-later
"""From a run's folder to comparisons: real captures of both kernels, laid out as a run leaves them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.results import Key, Row, RunResult
from harness.run.compare_kernels import compare_folder, compare_kernels, missing
from harness.run.request import Request
from harness.status import Status
from tests.unit.run.test_bad_luck import Listener

DATA = Path(__file__).parents[2] / "data"
VARIANTS = {"stock": "nowait", "noio": "noio"}


def folder_of(tmp_path: Path, *there: tuple[str, str]) -> tuple[Path, RunResult]:
    keys = tuple(Key(s, k) for k in VARIANTS for s in ("S23", "S29"))
    for scenario, kernel in there:
        source = DATA / ("captures" if kernel == "stock" else "captures-noio") / scenario
        shutil.copytree(source, tmp_path / Key(scenario, kernel).folder / "capture")
    rows = tuple(Row(key, Status.PASS) for key in keys if (key.scenario, key.kernel) in there)
    return tmp_path, RunResult("r", "apf compare", keys, rows)


def test_both_scenarios(tmp_path: Path) -> None:
    folder, result = folder_of(tmp_path, *((s, k) for s in ("S23", "S29") for k in VARIANTS))
    found = compare_folder(folder, result, "stock", "noio", VARIANTS)
    assert [(c.scenario, c.green) for c in found] == [("S23", True), ("S29", True)]
    assert missing(result, found, "stock") == ()


def test_a_side_without_a_capture_is_named(tmp_path: Path) -> None:
    folder, result = folder_of(tmp_path, ("S23", "stock"), ("S23", "noio"), ("S29", "stock"))
    found = compare_folder(folder, result, "stock", "noio", VARIANTS)
    assert [c.scenario for c in found] == ["S23"]
    assert [key.scenario for key in missing(result, found, "stock")] == ["S29"]


def test_the_wrong_variant_is_not_green(tmp_path: Path) -> None:
    folder, result = folder_of(tmp_path, ("S23", "stock"), ("S23", "noio"))
    (found,) = compare_folder(folder, result, "stock", "noio", {"stock": "nowait", "noio": "nowait"})
    assert found.b.status is Status.FAIL and not found.green


@pytest.mark.parametrize("kernels", [("debian-6.1",), ("debian-6.1", "debian-6.1"), ("a", "b", "c")])
def test_two_different_kernels_are_needed(kernels: tuple[str, ...], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two different kernels"):
        compare_kernels(Request(kernels=kernels, results=tmp_path / "results"), Listener(""))
    assert not (tmp_path / "results").exists()


def test_what_one_side_cannot_do_is_not_compared(tmp_path: Path) -> None:
    folder, result = folder_of(tmp_path, *((s, k) for s in ("S23", "S29") for k in VARIANTS))
    end = folder / "S23+stock/capture/end.json"
    end.write_text(json.dumps({**json.loads(end.read_text()), "status": "unsupported", "reason": "no zswap"}))
    found = compare_folder(folder, result, "stock", "noio", VARIANTS)
    assert [c.scenario for c in found] == ["S29"]
    assert [key.scenario for key in missing(result, found, "stock")] == ["S23"]
