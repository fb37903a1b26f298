# SPDX-License-Identifier: GPL-2.0-or-later
"""results/<run>/: where the evidence of a run lies.

results.json junit.xml results.tap kcidb.json results.sarif
                                       the whole run; rewritten after each verdict, so that a kill loses nothing
hosts/<kernel>-<n>.console.txt         the console of each host that was booted
<scenario>+<kernel>[+<repeat>]/
    scenario.toml plan.json capture/ verdict.json verdict.txt
    repeat.sh                                             repeats just this one; none where nobody can
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
from collections.abc import Iterator, Sequence
from pathlib import Path

from harness.contract.plan import Plan, to_json
from harness.errors import InfraFault, machine_fault
from harness.report.annotations import sarif_json
from harness.report.junit import junit_xml
from harness.report.kcidb import kcidb_json
from harness.report.results_json import results_json
from harness.report.tap import tap_text
from harness.report.verdict_text import reason_text, verdict_text
from harness.results import Key, Row, RunResult
from harness.run.whole_file import write_whole
from harness.scenario.dump import dump
from harness.scenario.schema import Scenario

REPEAT, SCENARIO = "repeat.sh", "scenario.toml"


class ResultsNotWritten(InfraFault):
    """A file of the results could not be written: the run ends."""


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    """:raise ResultsNotWritten: what is written there cannot be."""
    try:
        yield
    except OSError as exc:
        fault = machine_fault(exc, path) or InfraFault(
            f"{exc.filename or path}: {exc.strerror or exc}", hint="choose another folder with --results"
        )
        raise ResultsNotWritten(fault.message, hint=fault.hint) from exc


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
                draft.unlink(missing_ok=True)
                try:
                    draft.symlink_to(path.name)
                    draft.replace(root / "latest")
                finally:
                    draft.unlink(missing_ok=True)
                return RunFolder(path)
        except OSError as exc:
            raise InfraFault(f"cannot write results: {exc}", hint="choose another folder with --results") from exc
        raise InfraFault(f"{root} is full of runs of this second")

    def console(self, kernel: str) -> Path:
        """The file for the console of the next host that is booted.

        :raise ResultsNotWritten: it cannot be made.
        """
        folder = self.path / "hosts"
        stem = Key("host", kernel).folder.removeprefix("host+")
        with _writing(folder):
            folder.mkdir(exist_ok=True)
            for n in itertools.count(1):
                path = folder / f"{stem}-{n}.console.txt"
                with contextlib.suppress(FileExistsError):  # several processes boot hosts of one kernel
                    path.touch(exist_ok=False)
                    break
        return path

    def start(self, key: Key, plan: Plan, scenario: Scenario, repeat: Sequence[str] | None) -> Path:
        """Make the folder of one job, with its scenario and its plan.

        :param repeat: the command line by which `apf run` repeats it, without the scenario; None: nobody can.
        :raise ResultsNotWritten: it cannot be made.
        """
        folder = self.path / key.folder
        with _writing(folder):
            folder.mkdir(exist_ok=True)
            write_whole(folder / "plan.json", to_json(plan) + "\n")
        self.write_repeat(key, scenario, repeat)
        return folder

    def write_repeat(self, key: Key, scenario: Scenario, repeat: Sequence[str] | None) -> None:
        """Write the scenario of a job, and the script that repeats just this job; parameters as for start()."""
        folder = self.path / key.folder
        script, file = folder / REPEAT, folder / SCENARIO
        with _writing(folder):
            write_whole(file, dump(scenario))
            script.unlink(missing_ok=True)
            if repeat is not None:
                words = shlex.join([*repeat, str(file.absolute())])
                write_whole(script, f"#!/bin/sh\n# Repeats {key} and nothing else.\nexec {words}\n", 0o755)

    def finish(self, row: Row) -> None:
        """Write one verdict, for machines and for people.

        :raise ResultsNotWritten: it cannot be written.
        """
        folder = self.path / row.key.folder
        text = f"{row.key}: {row.verdict.word}\n{row.title}\n"
        for part in (reason_text(row.verdict), verdict_text(row.verdict)):
            text += f"\n{part}\n" if part else ""
        with _writing(folder):
            folder.mkdir(exist_ok=True)
            write_whole(folder / "verdict.json", row.verdict.to_json() + "\n")
            write_whole(folder / "verdict.txt", text)

    def write(self, result: RunResult) -> None:
        """Write the files about the whole run, each at once or not at all.

        :raise ResultsNotWritten: one cannot be written.
        """
        for name, text in (
            ("results.json", results_json(result)),
            ("junit.xml", junit_xml(result)),
            ("results.tap", tap_text(result)),
            ("kcidb.json", kcidb_json(result)),
            ("results.sarif", sarif_json(result)),
        ):
            self.write_text(name, text)

    def write_text(self, name: str, text: str) -> None:
        """A file of the whole run, at once or not at all.

        :raise ResultsNotWritten: it cannot be written.
        """
        with _writing(self.path / name):
            write_whole(self.path / name, text)
