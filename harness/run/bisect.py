# SPDX-License-Identifier: GPL-2.0-or-later
"""One step of `git bisect run`: build the tree's revision, run, answer good, bad or skip; resumable.

The state file holds every verdict by revision, so a step that was killed goes on where it was, and a revision that
git asks for twice is not run twice.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from harness.errors import ApfError, BuildFailed, InfraFault, UsageError
from harness.judge.verdict_types import Stage
from harness.results import Row
from harness.status import Status


class Answer(IntEnum):
    """Exit codes as git-bisect(1) understands them."""

    GOOD = 0
    BAD = 1
    SKIP = 125


@dataclass(slots=True)
class BisectState:
    """What is known of each revision: the verdicts so far, or why it was skipped."""

    path: Path
    verdicts: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    @staticmethod
    def load(path: Path) -> BisectState:
        """:raise UsageError: the file is not a state file."""
        if not path.exists():
            return BisectState(path)
        try:
            raw = json.loads(path.read_text())
            return BisectState(path, {k: list(v) for k, v in raw["verdicts"].items()}, dict(raw["skipped"]))
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise UsageError(
                f"{path} is not the state of a bisection: {exc!r}", hint="remove it to start anew"
            ) from exc

    def save(self) -> None:
        """At once or not at all, so that a kill loses one verdict at most."""
        draft = self.path.with_name(self.path.name + ".part")
        draft.write_text(json.dumps({"verdicts": self.verdicts, "skipped": self.skipped}, indent=1) + "\n")
        draft.replace(self.path)


def revision_of(tree: Path) -> str:
    """The commit that is checked out.

    :raise UsageError: no git tree.
    """
    done = subprocess.run(["git", "-C", str(tree), "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise UsageError(f"{tree} is not a git checkout: {done.stderr.strip()}")
    return done.stdout.strip()


def state_path(tree: Path) -> Path:
    """Beside git's own bisection state, so that it is never part of the tree.

    :raise UsageError: no git tree.
    """
    done = subprocess.run(
        ["git", "-C", str(tree), "rev-parse", "--absolute-git-dir"], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise UsageError(f"{tree} is not a git checkout: {done.stderr.strip()}")
    return Path(done.stdout.strip()) / "apf-bisect.json"


def step(
    state: BisectState,
    revision: str,
    repeats: int,
    perform: Callable[[], Sequence[Row]],
    tell: Callable[[str], None],
    *,
    patience: int = 2,
) -> Answer:
    """Run until the answer is certain.

    One FAIL is bad: the model allows no correct kernel to fail.  ``repeats`` rounds without one are good.  What proves
    nothing (INCONCLUSIVE, ERROR, UNSUPPORTED) is tried again ``patience`` times, then the revision is skipped.

    :param perform: one round of the scenarios; raises BuildFailed or another ApfError when there is nothing to run.
    """
    if revision in state.skipped:
        tell(f"{revision[:12]}: skipped before: {state.skipped[revision]}")
        return Answer.SKIP
    known = state.verdicts.setdefault(revision, [])
    while True:
        answer = _answer(known, repeats, patience)
        if answer is not None:
            if answer is Answer.SKIP:
                state.skipped[revision] = f"proved nothing: {', '.join(known)}"
                state.save()
            tell(f"{revision[:12]}: {answer.name.lower()} ({', '.join(known)})")
            return answer
        try:
            rows = perform()
        except (BuildFailed, InfraFault) as exc:
            return _skip(state, revision, exc, tell)
        if rows and all(row.verdict.stage in (Stage.SETUP, Stage.BOOT) for row in rows):
            return _skip(state, revision, InfraFault(rows[0].verdict.reason), tell)
        known.append(_round(rows).value)
        state.save()


def _skip(state: BisectState, revision: str, exc: ApfError, tell: Callable[[str], None]) -> Answer:
    state.skipped[revision] = exc.message.splitlines()[0]
    state.save()
    tell(f"{revision[:12]}: skip: {exc}")
    return Answer.SKIP


def _round(rows: Sequence[Row]) -> Status:
    """One word for a round: a FAIL outranks everything, anything else but what the model says proves nothing.

    A host that died while it booted is no FAIL of a scenario.
    """
    words = {Status.INCONCLUSIVE if row.verdict.stage is Stage.BOOT else row.status for row in rows}
    if Status.FAIL in words:
        return Status.FAIL
    return Status.PASS if words and all(word.as_predicted for word in words) else Status.INCONCLUSIVE


def _answer(known: Sequence[str], repeats: int, patience: int) -> Answer | None:
    if Status.FAIL.value in known:
        return Answer.BAD
    if known.count(Status.PASS.value) >= repeats:
        return Answer.GOOD
    if known.count(Status.INCONCLUSIVE.value) > patience:
        return Answer.SKIP
    return None
