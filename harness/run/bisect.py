# SPDX-License-Identifier: GPL-2.0-or-later
"""One step of `git bisect run`: build the tree's revision, run, answer good, bad or skip; resumable.

The state file holds by revision what is certain of it, so a step that was killed goes on where it was, and a revision
that git asks for twice is not run twice.  What may be the machine's doing is not kept.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from harness.errors import ApfError, InfraFault, UsageError
from harness.hosts.virtual.virtual_host import DID_NOT_BOOT
from harness.judge.verdict_types import Stage
from harness.results import Row
from harness.run.own_version import own_version
from harness.run.whole_file import write_whole
from harness.scenario.schema import Scenario
from harness.status import Status


class Answer(IntEnum):
    """Exit codes as git-bisect(1) understands them.  An error is none of them: see harness.cli.exit_code."""

    GOOD = 0
    BAD = 1
    SKIP = 125


class Untestable(ApfError):
    """A revision cannot be tested, by its own fault.

    :ivar lasting: nothing but another revision changes that, so that it is remembered.
    """

    def __init__(self, message: str, *, hint: str = "", lasting: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.lasting = lasting


@dataclass(slots=True)
class BisectState:
    """What is known of each revision: the verdicts PASS and FAIL so far, or why it can never be tested.

    ``about``: what was asked of them; who asks something else knows nothing yet.
    """

    path: Path
    verdicts: dict[str, list[str]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    about: str = ""

    @staticmethod
    def load(path: Path, about: str = "") -> BisectState:
        """That of an interrupted bisection; a new one where there is none, or one about something else.

        :raise UsageError: the file is not a state file.
        """
        if not path.exists():
            return BisectState(path, about=about)
        try:
            raw = json.loads(path.read_text())
            found = BisectState(
                path, {k: list(v) for k, v in raw["verdicts"].items()}, dict(raw["skipped"]), raw.get("about", "")
            )
            return found if found.about == about else BisectState(path, about=about)
        except (ValueError, KeyError, TypeError, AttributeError) as exc:
            raise UsageError(
                f"{path} is not the state of a bisection: {exc!r}", hint="remove it to start anew"
            ) from exc

    def save(self) -> None:
        """At once or not at all, so that a kill loses one verdict at most."""
        known = {"about": self.about, "verdicts": self.verdicts, "skipped": self.skipped}
        write_whole(self.path, json.dumps(known, indent=1) + "\n")


def question(scenarios: Sequence[Scenario], variant: str) -> str:
    """What is asked of each revision, in few letters: these scenarios, as they are written now, by this model of this
    version of the harness."""
    words = [own_version(), variant, *(repr(scenario) for scenario in scenarios)]
    return hashlib.sha256("\0".join(words).encode()).hexdigest()[:16]


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

    One FAIL is bad: the model allows no correct kernel to fail.  ``repeats`` rounds without one are good.  A round that
    proves nothing (INCONCLUSIVE, UNSUPPORTED, ERROR) is tried again ``patience`` times; then the revision is skipped
    for this time, unless nothing but errors of ours or of the machine stood in the way.

    :param perform: one round of the scenarios; raises Untestable where the revision cannot be built or judged.
    :raise InfraFault: errors of ours or of the machine, and no answer.
    """
    if revision in state.skipped:
        tell(f"{revision[:12]}: skipped before: {state.skipped[revision]}")
        return Answer.SKIP
    known = state.verdicts.setdefault(revision, [])
    nothing: list[Sequence[Row]] = []
    while True:
        answer = _answer(known, repeats)
        if answer is not None:
            tell(f"{revision[:12]}: {answer.name.lower()} ({', '.join(known)})")
            return answer
        if len(nothing) > patience:
            return _nothing_proved(revision, nothing, tell)
        try:
            rows = perform()
            _require_a_boot(rows)
        except Untestable as exc:
            if exc.lasting:
                state.skipped[revision] = exc.message.splitlines()[0]
                state.save()
            tell(f"{revision[:12]}: skip: {exc}")
            return Answer.SKIP
        word = _round(rows)
        if word in (Status.PASS, Status.FAIL):
            known.append(word.value)
            state.save()
        else:
            nothing.append(rows)


def _require_a_boot(rows: Sequence[Row]) -> None:
    """:raise Untestable: no host came up, because this kernel died."""
    if rows and all(row.verdict.stage is Stage.BOOT for row in rows):
        died = [row.verdict.reason for row in rows if row.status is Status.FAIL]
        if died:
            raise Untestable(died[0], lasting=True)


def _nothing_proved(revision: str, rounds: Sequence[Sequence[Row]], tell: Callable[[str], None]) -> Answer:
    """Skip, unless each round ended in errors.

    :raise InfraFault: each did.
    """
    words = [_round(rows) for rows in rounds]
    reason = next((row.verdict.reason for row in rounds[-1] if not row.status.as_predicted), "nothing was performed")
    if all(word is Status.ERROR for word in words):
        raise InfraFault(
            f"{revision[:12]}: {len(rounds)} rounds ended in errors: {reason}",
            hint="where that is this revision's own doing, say `git bisect skip`",
        )
    tell(f"{revision[:12]}: skip: proved nothing in {len(rounds)} rounds: {reason}")
    return Answer.SKIP


def _round(rows: Sequence[Row]) -> Status:
    """One word for a round: a FAIL outranks everything; PASS: all is as the model says; ERROR: but for errors of ours
    or the machine; INCONCLUSIVE: anything else."""
    words = {_word(row) for row in rows}
    if Status.FAIL in words:
        return Status.FAIL
    others = {word for word in words if not word.as_predicted}
    if words and not others:
        return Status.PASS
    return Status.ERROR if others == {Status.ERROR} else Status.INCONCLUSIVE


def _word(row: Row) -> Status:
    """The status of a row: a host that was not there yet says nothing of the scenario.

    One that did not come up may have a kernel that hangs; one that could not be started has none that ran.
    """
    match row.verdict.stage:
        case Stage.SETUP:
            return Status.ERROR
        case Stage.BOOT:
            died = row.status is Status.FAIL or DID_NOT_BOOT in row.verdict.reason
            return Status.INCONCLUSIVE if died else Status.ERROR
        case _:
            return row.status


def _answer(known: Sequence[str], repeats: int) -> Answer | None:
    if Status.FAIL.value in known:
        return Answer.BAD
    return Answer.GOOD if known.count(Status.PASS.value) >= repeats else None
