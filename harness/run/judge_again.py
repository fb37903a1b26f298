# SPDX-License-Identifier: GPL-2.0-or-later
"""The captures of whole runs, judged again by today's model, against what was said of them then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.errors import ApfError, UsageError
from harness.judge.verdict_types import Verdict
from harness.model.kernels import Variant
from harness.run.judge_folder import judge_folder
from harness.run.judging_pool import judging_pool
from harness.status import Status

VERDICT = "verdict.json"
CAPTURE = "capture"


@dataclass(frozen=True, slots=True)
class JudgedAgain:
    """A verdict of a run. ``then``, ``now``: its word; ``reason``: of now."""

    folder: Path
    then: str
    now: str
    reason: str

    @property
    def differs(self) -> bool:
        return self.then != self.now


def verdict_folders(run: Path) -> list[Path]:
    """Folders of a run that have a verdict and a capture, by name; empty: it is no run's folder."""
    found = (file.parent for file in run.glob(f"*/{VERDICT}"))
    return sorted(folder for folder in found if (folder / CAPTURE).is_dir())


def judge_again(folders: Sequence[Path]) -> Iterator[JudgedAgain]:
    """Each in turn, several at once.

    :raise UsageError: a verdict.json that cannot be read.
    """
    with judging_pool() as pool:
        yield from pool.map(_again, folders, chunksize=4)


def _again(folder: Path) -> JudgedAgain:
    """What nobody can judge is an ERROR, and ends none of the others."""
    try:
        then = Verdict.from_json((folder / VERDICT).read_text())
    except OSError as exc:
        raise UsageError(f"{folder}/{VERDICT}: {exc}") from exc
    try:
        now = judge_folder(folder / CAPTURE, then.judged_by or Variant.NOWAIT)
    except ApfError as exc:
        return JudgedAgain(folder, then.word, Status.ERROR, exc.message)
    return JudgedAgain(folder, then.word, now.word, now.reason)
