# SPDX-License-Identifier: GPL-2.0-or-later
"""Results of all runs below a folder in one SQLite file, and which captures are kept when they become too many.

The file is made from the results.json of each run and can be made again from them: history.sqlite in the results
folder.  A run that is not over yet, or that was changed, is read anew the next time.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import shutil
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from harness.errors import InfraFault
from harness.report.history_trends import NightRun, NightVerdict
from harness.status import Status

FILE = "history.sqlite"
_SCHEMA_VERSION = 1
_SCHEMA = """
CREATE TABLE runs (
    run TEXT PRIMARY KEY, mtime_ns INTEGER NOT NULL, began TEXT NOT NULL, host TEXT NOT NULL, command TEXT NOT NULL,
    exit_code INTEGER NOT NULL, interrupted INTEGER NOT NULL, seconds REAL NOT NULL, planned INTEGER NOT NULL,
    missing INTEGER NOT NULL, troubles TEXT NOT NULL
) STRICT;
CREATE TABLE facts (
    run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, name TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (run, name)
) STRICT;
CREATE TABLE verdicts (
    run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, scenario TEXT NOT NULL, kernel TEXT NOT NULL,
    repeat INTEGER NOT NULL, verdict TEXT NOT NULL, green INTEGER NOT NULL, stage TEXT NOT NULL, reason TEXT NOT NULL,
    seconds REAL NOT NULL, build TEXT NOT NULL, folder TEXT NOT NULL,
    PRIMARY KEY (run, scenario, kernel, repeat)
) STRICT;
CREATE INDEX verdicts_of ON verdicts (scenario, kernel);
CREATE TABLE counts (
    run TEXT NOT NULL REFERENCES runs ON DELETE CASCADE, scenario TEXT NOT NULL, kernel TEXT NOT NULL,
    repeat INTEGER NOT NULL, name TEXT NOT NULL, seen INTEGER, predicted TEXT NOT NULL,
    PRIMARY KEY (run, scenario, kernel, repeat, name)
) STRICT;
"""
_STAMP = re.compile(r"(\d{4})(\d\d)(\d\d)-(\d\d)(\d\d)(\d\d)")


class History:
    """Made by open_history(); a run is known by the name of its folder."""

    def __init__(self, results: Path, db: sqlite3.Connection) -> None:
        self._results = results
        self._db = db

    def take_in(self) -> tuple[str, ...]:
        """Read every run below the folder that is not known as it is now; their names, oldest first.

        A results.json that cannot be read is passed over: a run may just be writing its first.
        """
        known = dict(self._db.execute("SELECT run, mtime_ns FROM runs"))
        taken = []
        for path in sorted(self._results.glob("*/results.json")):
            name = path.parent.name
            if path.parent.is_symlink():
                continue
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError, sqlite3.IntegrityError):
                mtime = path.stat().st_mtime_ns
                if known.get(name) != mtime:
                    raw = json.loads(path.read_text())
                    with self._db:
                        self._put(path.parent, mtime, raw)
                    taken.append(name)
        return tuple(taken)

    def _put(self, folder: Path, mtime: int, raw: Mapping[str, Any]) -> None:
        if raw["format"] != 1:
            raise ValueError("not a format that this reads")
        run, facts = folder.name, raw["facts"]
        self._db.execute("DELETE FROM runs WHERE run = ?", (run,))
        self._db.execute(
            "INSERT INTO runs VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run, mtime, _began(folder), facts.get("host", "virtual"), raw["command"], raw["exit_code"],
                raw["interrupted"], float(raw["seconds"]), raw["planned"], len(raw["missing"]),
                json.dumps([*raw.get("troubles", []), *raw.get("refused", [])]),
            ),
        )  # fmt: skip
        self._db.executemany("INSERT INTO facts VALUES (?, ?, ?)", [(run, k, str(v)) for k, v in facts.items()])
        for told in raw["verdicts"]:
            key = (run, told["scenario"], told["kernel"], told["repeat"])
            self._db.execute(
                "INSERT INTO verdicts VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    *key, Status(told["verdict"]).value, bool(told["green"]), told["stage"], told["reason"],
                    float(told["seconds"]), _build(facts, told["kernel"]), told["folder"],
                ),
            )  # fmt: skip
            self._db.executemany("INSERT INTO counts VALUES (?, ?, ?, ?, ?, ?, ?)", [
                (*key, name, seen, predicted) for name, seen, predicted in _counts(folder / told["verdict_file"])
            ])  # fmt: skip

    def runs(self) -> tuple[NightRun, ...]:
        """Every run, oldest first."""
        rows = self._db.execute(
            "SELECT run, began, host, command, exit_code, seconds, missing, troubles FROM runs ORDER BY began, run"
        )
        return tuple(
            NightRun(run, began, host, command, exit_code, seconds, missing, tuple(json.loads(troubles)))
            for run, began, host, command, exit_code, seconds, missing, troubles in rows
        )

    def verdicts(self) -> tuple[NightVerdict, ...]:
        """Every verdict, oldest first."""
        rows = self._db.execute(
            "SELECT run, began, scenario, kernel, host, verdict, green, reason, build, folder"
            " FROM verdicts JOIN runs USING (run) ORDER BY began, run, scenario, kernel, repeat"
        )
        return tuple(
            NightVerdict(
                run, began, scenario, kernel, host, Status(verdict), bool(green), reason, build,
                str(self._results / run / folder),
            )
            for run, began, scenario, kernel, host, verdict, green, reason, build, folder in rows
        )  # fmt: skip

    def tonight(self, hours: float) -> tuple[str, ...]:
        """The names of the newest run, and of those that began at most so many hours before it."""
        runs = self.runs()
        if not runs:
            return ()
        newest = datetime.datetime.fromisoformat(runs[-1].began)
        begin = newest - datetime.timedelta(hours=hours)
        return tuple(run.run for run in runs if datetime.datetime.fromisoformat(run.began) >= begin)

    def keep(self, mib: int) -> tuple[Path, ...]:
        """Remove captures until all runs together take at most ``mib`` MiB; what was removed.

        Verdicts, reports and results stay.  Green ones go first, oldest first, then the others, oldest first.  The
        newest run's stay whatever the size, and so does the newest bad one of each scenario and kernel.
        """
        verdicts = self.verdicts()
        newest = verdicts[-1].run if verdicts else ""
        last_bad = {v.subject: v.folder for v in verdicts if not v.green}
        left = _size(self._results)
        removed = []
        for verdict in sorted(verdicts, key=lambda v: (not v.green, v.began)):
            if left <= mib << 20:
                break
            capture = Path(verdict.folder) / "capture"
            kept = verdict.run == newest or last_bad.get(verdict.subject) == verdict.folder
            if kept or not capture.is_dir() or capture.is_symlink():
                continue
            left -= _size(capture)
            shutil.rmtree(capture)
            removed.append(capture)
        return tuple(removed)


@contextlib.contextmanager
def open_history(results: Path) -> Iterator[History]:
    """The history of the runs below a folder.

    :raise InfraFault: the file cannot be read or written, or was made by another version.
    """
    try:
        db = sqlite3.connect(results / FILE, timeout=60)
    except sqlite3.Error as exc:
        raise InfraFault(f"{results / FILE}: {exc}") from exc
    try:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute("PRAGMA journal_mode = WAL")
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if version == 0:
            with db:
                for statement in _SCHEMA.split(";"):
                    db.execute(statement)
                db.execute(f"PRAGMA user_version = {_SCHEMA_VERSION}")
        elif version != _SCHEMA_VERSION:
            raise InfraFault(
                f"{results / FILE} is of version {version}, this reads {_SCHEMA_VERSION}",
                hint="remove it: it is made again from the runs' results.json",
            )
        yield History(results, db)
    except sqlite3.Error as exc:
        raise InfraFault(f"{results / FILE}: {exc}", hint="remove it: it is made again from the runs") from exc
    finally:
        db.close()


def _began(folder: Path) -> str:
    """By the name of the run's folder, which is its start; else by the file's time."""
    found = _STAMP.match(folder.name)
    if found is not None:
        with contextlib.suppress(ValueError):
            return datetime.datetime(*map(int, found.groups())).isoformat()  # type: ignore[arg-type]
    return datetime.datetime.fromtimestamp((folder / "results.json").stat().st_mtime).isoformat(timespec="seconds")


def _build(facts: Mapping[str, str], kernel: str) -> str:
    return next((facts[f"{kernel} {name}"] for name in ("made from", "kernel", "release")
                 if f"{kernel} {name}" in facts), "")  # fmt: skip


def _counts(path: Path) -> Sequence[tuple[str, int | None, str]]:
    """The cells of a verdict's columns and its totals; none where its file is not there."""
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        raw = json.loads(path.read_text())
        found = {cell["name"]: (cell["name"], cell["seen"], json.dumps(cell["predicted"]))
                 for cell in (*raw["columns"], *raw["totals"])}  # fmt: skip
        return tuple(found.values())
    return ()


def _size(folder: Path) -> int:
    """Bytes of the blocks of all files below."""
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):
            total += path.lstat().st_blocks * 512
    return total
