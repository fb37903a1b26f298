# SPDX-License-Identifier: GPL-2.0-or-later
"""Workflow files and systemd units: as their own tools want them, and calling only what this repository has."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.test_house import FILES, ROOT
from tests.unit.waiting import HANG_S

WORKFLOWS = [f for f in FILES if f.parts[:2] == (".github", "workflows")]
UNITS = [f for f in FILES if f.parts[:2] == (".ci", "systemd")]
TARGETS = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
needs_systemd = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd-analyze")


def schema_says(path: Path, schema: str, *more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, *more, str(path)],
        cwd=ROOT, capture_output=True, text=True, timeout=HANG_S, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("path", WORKFLOWS, ids=str)
def test_a_workflow_obeys_its_schema_and_a_slip_is_found(path: Path, tmp_path: Path) -> None:
    done = schema_says(path, "vendor.github-workflows")
    assert done.returncode == 0, done.stdout
    slip = tmp_path / "slip.yml"
    slip.write_text((ROOT / path).read_text().replace("runs-on:", "run-on:"))
    assert schema_says(slip, "vendor.github-workflows").returncode == 1


def test_the_gitlab_file_obeys_its_schema_and_a_slip_is_found(tmp_path: Path) -> None:
    more = ("--data-transform", "gitlab-ci")
    done = schema_says(Path(".gitlab-ci.yml"), "vendor.gitlab-ci", *more)
    assert done.returncode == 0, done.stdout
    slip = tmp_path / "slip.yml"
    slip.write_text((ROOT / ".gitlab-ci.yml").read_text().replace("when: always", "when: sometimes"))
    assert schema_says(slip, "vendor.gitlab-ci", *more).returncode == 1


@needs_systemd
def test_the_units_are_accepted_by_systemd() -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, UNITS)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_all_of_them_call_make_targets_and_scripts_that_exist() -> None:
    texts = [(ROOT / f).read_text() for f in (*WORKFLOWS, Path(".gitlab-ci.yml"), *UNITS)]
    called = re.compile(r"(?:run: |- |=/usr/bin/)make ([a-z0-9-]+)$", re.MULTILINE)
    targets = {target for text in texts for target in called.findall(text)}
    assert {"setup", "nightly"} <= targets <= TARGETS
    scripts = {script for text in texts for script in re.findall(r"(?:run: |- |=)(\.ci/\S+)", text)}
    assert scripts and all(os.access(ROOT / script, os.X_OK) for script in scripts)


def test_the_paths_of_the_units_are_one_place() -> None:
    for unit in UNITS:
        for path in re.findall(r"/srv/\S+?(?=[\s/,]|$)", (ROOT / unit).read_text()):
            assert path == "/srv" or path.startswith("/srv/apf")


NIGHTS = ROOT / "tests/data/nights"


@pytest.mark.long
def test_a_night_is_told_and_mailed_also_when_nothing_could_be_run(tmp_path: Path) -> None:
    """The real script with a kernel that does not exist: make e2e fails, and the mail says so after the last night."""
    results, bin_ = tmp_path / "results", tmp_path / "bin"
    shutil.copytree(NIGHTS, results)
    bin_.mkdir()
    (bin_ / "sendmail").write_text(f'#!/bin/sh\n[ "$*" = -t ] && cat > {tmp_path}/mail\n')
    (bin_ / "sendmail").chmod(0o755)
    env = {k: v for k, v in os.environ.items() if k not in ("MAKEFLAGS", "MAKELEVEL", "HOST", "SCENARIOS")}
    done = subprocess.run(
        [ROOT / ".ci/nightly"], capture_output=True, text=True, timeout=HANG_S, check=False,
        env=env | {
            "PATH": f"{bin_}:{os.environ['PATH']}", "RESULTS": str(results), "MAIL": "me@example.org",
            "KERNELS": "/nonexistent/bzImage", "KEEP_MIB": "20000",
        },
    )  # fmt: skip
    assert done.returncode == 2, done.stdout + done.stderr
    mail = (tmp_path / "mail").read_text()
    assert mail.startswith("From: ") and "\nTo: me@example.org\nSubject: apf 20" in mail
    assert mail.rstrip().endswith("The scenarios of this night ended with exit code 2 (make e2e).")
    assert (results / "night.txt").read_text().splitlines()[0] == re.findall(r"^Subject: (.*)$", mail, re.MULTILINE)[0]
