# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of accepted findings, and the project's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import UsageError
from harness.run.accepted_findings import read_accepted_findings
from tests.house.test_house import ROOT

GOOD = '[[accepted]]\nfinding = "F1"\nkernels = ["debian-6.1", "noio-*"]\nreason = "no fix yet"\n'


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "accepted.toml"
    path.write_text(text)
    return path


def test_entries(tmp_path: Path) -> None:
    (entry,) = read_accepted_findings(written(tmp_path, GOOD))
    assert (entry.finding, entry.reason) == ("F1", "no fix yet")
    assert [entry.covers(k) for k in ("debian-6.1", "noio-6.1", "debian-6.12")] == [True, True, False]
    assert read_accepted_findings(written(tmp_path, "")) == ()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (GOOD.replace("F1", "F99"), "'F99' is not one of F1"),
        (GOOD.replace('["debian-6.1", "noio-*"]', "[]"), "must be names of kernels"),
        (GOOD.replace('["debian-6.1", "noio-*"]', '"debian-6.1"'), "must be names of kernels"),
        (GOOD.replace("no fix yet", " "), "must say why"),
        (GOOD + "until = 7\n", "until: unknown key"),
        (GOOD.replace("accepted", "allowed"), "unknown key 'allowed'"),
        ("accepted = 1\n", "no list of tables"),
        ("accepted = [1]\n", "no table"),
        ("[[", "accepted.toml"),
    ],
)
def test_what_is_wrong_is_said(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        read_accepted_findings(written(tmp_path, text))


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nowhere"):
        read_accepted_findings(tmp_path / "nowhere.toml")


def test_the_project_has_one() -> None:
    assert read_accepted_findings(ROOT / "tests/accepted-findings.toml")
