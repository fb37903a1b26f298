# SPDX-License-Identifier: GPL-2.0-or-later
"""results/<run>/: where the evidence of a run lies.

results.json junit.xml results.tap kcidb.json results.sarif
                                       the whole run; rewritten after each verdict, so that a kill loses nothing
hosts/<kernel>-<n>.console.txt         the console of each host that was booted
<scenario>+<kernel>[+<repeat>]/
    plan.json capture/ verdict.json verdict.txt repeat.sh
    timeline.svg timeline.pftrace.gz latencies.json       see drawings.py
index.html                             the page of the run, see report_folder.py
../latest                              points to the newest run
"""

from __future__ import annotations

import contextlib
import datetime
import itertools
import os
import shlex
from pathlib import Path

from harness.contract.plan import Plan, to_json
from harness.errors import InfraFault
from harness.report.annotations import sarif_json
from harness.report.junit import junit_xml
from harness.report.kcidb import kcidb_json
from harness.report.results_json import results_json
from harness.report.tap import tap_text
from harness.report.verdict_text import reason_text, verdict_text
from harness.results import Key, Row, RunResult


class RunFolder:
    """The folder of one run; made by RunFolder.create()."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @staticmethod
    def create(root: Path, now: datetime.datetime) -> RunFolder:
        """A new folder below ``root``, named by the time; ``root/latest`` points to it.

        :raise InfraFault: it cannot be made.
        """
        try:
            root.mkdir(parents=True, exist_ok=True)
            stamp = now.strftime("%Y%m%d-%H%M%S")
            for n in range(1000):
                path = root / (stamp if n == 0 else f"{stamp}-{n}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                draft = root / f".latest-{os.getpid()}"
                with contextlib.suppress(FileNotFoundError):
                    draft.unlink()
                draft.symlink_to(path.name)
                draft.replace(root / "latest")
                return RunFolder(path)
        except OSError as exc:
            raise InfraFault(f"cannot write results: {exc}", hint="choose another folder with --results") from exc
        raise InfraFault(f"{root} is full of runs of this second")

    def console(self, kernel: str) -> Path:
        """The file for the console of the next host that is booted."""
        folder = self.path / "hosts"
        folder.mkdir(exist_ok=True)
        stem = Key("host", kernel).folder.removeprefix("host+")
        for n in itertools.count(1):
            path = folder / f"{stem}-{n}.console.txt"
            with contextlib.suppress(FileExistsError):  # several processes boot hosts of one kernel
                path.touch(exist_ok=False)
                break
        return path

    def start(self, key: Key, plan: Plan, repeat_command: list[str]) -> Path:
        """Make the folder of one job, with its plan and the command that repeats just this one."""
        folder = self.path / key.folder
        folder.mkdir(exist_ok=True)
        (folder / "plan.json").write_text(to_json(plan) + "\n")
        script = folder / "repeat.sh"
        script.write_text(f"#!/bin/sh\n# Repeats {key} and nothing else.\nexec {shlex.join(repeat_command)}\n")
        script.chmod(0o755)
        return folder

    def finish(self, row: Row) -> None:
        """Write one verdict, for machines and for people."""
        folder = self.path / row.key.folder
        folder.mkdir(exist_ok=True)
        (folder / "verdict.json").write_text(row.verdict.to_json() + "\n")
        text = f"{row.key}: {row.verdict.word}\n{row.title}\n"
        for part in (reason_text(row.verdict), verdict_text(row.verdict)):
            text += f"\n{part}\n" if part else ""
        (folder / "verdict.txt").write_text(text)

    def write(self, result: RunResult) -> None:
        """Write the files about the whole run, each at once or not at all."""
        for name, text in (
            ("results.json", results_json(result)),
            ("junit.xml", junit_xml(result)),
            ("results.tap", tap_text(result)),
            ("kcidb.json", kcidb_json(result)),
            ("results.sarif", sarif_json(result)),
        ):
            self.write_text(name, text)

    def write_text(self, name: str, text: str) -> None:
        """A file of the whole run, at once or not at all."""
        draft = self.path / f".{name}.part"
        draft.write_text(text)
        draft.replace(self.path / name)
