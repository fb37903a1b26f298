# SPDX-License-Identifier: GPL-2.0-or-later
"""Trials of earlier runs of `apf mutants`, read back from their folders: what was performed need not be again."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from harness.contract.plan import Plan, from_json
from harness.errors import UsageError
from harness.judge.verdict_types import Stage, Verdict
from harness.results import Key, Row
from harness.run.judge_again import CAPTURE, judged_anew, read_verdict
from harness.run.judging_pool import judging_pool
from harness.run.mutant_trials import Mutant, Trial
from harness.scenario.build import build_plan
from harness.scenario.schema import Scenario
from harness.status import Status


@dataclass(frozen=True, slots=True)
class _Done:
    key: Key
    folder: Path  # of the run
    verdict_file: Path
    seconds: float


def earlier_trials(
    results: Path,
    kernel: str,
    identity: str,
    mutants: Sequence[Mutant],
    scenarios: Iterable[Scenario],
    *,
    again: bool = False,
) -> list[Trial]:
    """Trials of the runs below ``results`` whose kernel was made from the same sources, the newest of each.

    A scenario that has changed since is another one: what it was tried on tells nothing of it.  An ERROR is no trial,
    unless it is that of a host that fell silent under it; nor is a host that did not come up.

    :param identity: BuiltKernel.identity of the kernel.
    :param scenarios: those of today.
    :param again: judge the captures again, with the rules of today.
    :raise UsageError: a results.json or verdict.json that cannot be read.
    """
    plans = {s.id: _comparable(build_plan(s, 0)) for s in scenarios}
    found: dict[Key, _Done] = {}
    for path in sorted(results.glob("*/results.json")):
        if not path.parent.is_symlink():
            found |= {done.key: done for done in _performed(path, kernel, identity, plans)}
    if again:
        with judging_pool() as pool:
            verdicts = list(pool.map(_judged, found.values(), chunksize=8))
    else:
        verdicts = [_read(done) for done in found.values()]
    known = {m.id_under("", at_go): (m, at_go) for m in mutants for at_go in (False, True)}
    trials = []
    for done, verdict in zip(found.values(), verdicts, strict=True):
        scenario, at, label = done.key.scenario.rpartition("@")
        mutant, at_go = known.get(at + label, (None, False)) if at else (None, False)
        began = verdict.stage not in (Stage.SETUP, Stage.BOOT)
        accident = not began or (verdict.status is Status.ERROR and verdict.stage is not Stage.PERFORM)
        if accident or (at and mutant is None):
            continue
        row = Row(done.key, verdict, seconds=done.seconds)
        trials.append(Trial(mutant, scenario if at else done.key.scenario, row, done.folder, at_go))
    return trials


def _comparable(plan: Plan) -> Plan:
    """Without what the mutant, the patience with it, and the run make different."""
    return replace(plan, scenario="", title="", nonce=0, deadline_s=0, kernel_params=(), kernel_params_at_go=())


def _performed(path: Path, kernel: str, identity: str, plans: Mapping[str, Plan]) -> Iterator[_Done]:
    try:
        raw = json.loads(path.read_text())
        if raw["facts"].get(f"{kernel} made from") != identity:
            return
        for row in raw["verdicts"]:
            key = Key(row["scenario"], row["kernel"], row["repeat"])
            planned = plans.get(key.scenario.rpartition("@")[0] or key.scenario)
            plan = path.parent / key.folder / "plan.json"
            if planned is None or not plan.is_file() or _comparable(from_json(Plan, plan.read_text())) != planned:
                continue
            yield _Done(key, path.parent, path.parent / row["verdict_file"], row["seconds"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as exc:
        raise UsageError(f"{path}: not the results of a run: {exc!r}") from exc


def _read(done: _Done) -> Verdict:
    return read_verdict(done.verdict_file)


def _judged(done: _Done) -> Verdict:
    old = _read(done)
    return judged_anew(done.folder / done.key.folder / CAPTURE, old) if old.judged_by else old
