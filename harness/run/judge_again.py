# SPDX-License-Identifier: GPL-2.0-or-later
"""The captures of whole runs, judged again by today's model, against what was said of them then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.errors import UsageError
from harness.judge.verdict_types import Stage, Verdict
from harness.model.kernels import Variant
from harness.run.error_status import CONSOLE, failure_of
from harness.run.judge_folder import judge_folder
from harness.run.judging_pool import judging_pool

VERDICT = "verdict.json"
CAPTURE = "capture"


@dataclass(frozen=True, slots=True)
class JudgedAgain:
    """A verdict of a run. ``then``, ``now``: its word; ``reason``: of now; ``judged``: false where nothing was judged
    then, and so nothing is now."""

    folder: Path
    then: str
    now: str
    reason: str
    judged: bool = True

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
    then = read_verdict(folder / VERDICT)
    now = judged_anew(folder / CAPTURE, then)
    return JudgedAgain(folder, then.word, now.word, now.reason, then.stage is Stage.JUDGE)


def read_verdict(file: Path) -> Verdict:
    """A verdict.json. :raise UsageError: it cannot be read."""
    try:
        return Verdict.from_json(file.read_text())
    except OSError as exc:
        raise UsageError(f"{file}: {exc.strerror}") from exc


def judged_anew(capture: Path, then: Verdict, variant: str = Variant.NOWAIT) -> Verdict:
    """What today's judge says of a capture.  What nobody can judge, or only by a mistake of ours, is an ERROR.

    What came without a judgement stays as it was, and where the host's console told against the kernel that has the
    last word again (Worker): neither is in the capture.

    :param variant: of the kernel, where ``then`` names no model.
    """
    if then.stage is not Stage.JUDGE:
        return then
    try:
        now = judge_folder(capture, then.judged_by or variant)
    except Exception as exc:  # noqa: BLE001 - one capture must not end the judging of the others
        return failure_of(exc, Stage.JUDGE, capture).verdict(then.scenario)
    said = tuple(finding for finding in then.findings if finding.rule == CONSOLE)
    return replace(now, status=then.status, reason=then.reason, findings=(*said, *now.findings)) if said else now
