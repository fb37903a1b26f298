# SPDX-License-Identifier: GPL-2.0-or-later
"""The verdicts of whole runs, each held against what ``apf predict`` says of its plan."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from harness.evidence.decode import read_plan
from harness.judge.foretold import unforetold
from harness.judge.verdict_types import Stage
from harness.model.kernels import Variant
from harness.prediction import predict
from harness.run.error_status import failure_of
from harness.run.judge_again import CAPTURE, VERDICT, read_verdict
from harness.run.judge_folder import model_of, read_capture
from harness.run.judging_pool import judging_pool
from harness.status import Status

_AS_PREDICTED = (Status.PASS, Status.FINDING)


@dataclass(frozen=True, slots=True)
class Foretold:
    """A verdict of a run.  ``outside``: what was seen and had not been said; ``passed_over``: why nothing was held
    against it, empty where something was."""

    folder: Path
    outside: tuple[str, ...] = ()
    passed_over: str = ""


def hold_against_predictions(folders: Sequence[Path], orders: int) -> Iterator[Foretold]:
    """Each in turn, several at once; ``orders``: see predict().

    :raise UsageError: a verdict.json that cannot be read.
    """
    with judging_pool() as pool:
        yield from pool.map(partial(_held, orders=orders), folders)


def _held(folder: Path, orders: int) -> Foretold:
    """What is not as predicted with all that the run decided is not as predicted before it, either: the verdict has
    said so."""
    verdict = read_verdict(folder / VERDICT)
    if verdict.status not in _AS_PREDICTED:
        return Foretold(folder, passed_over=f"its verdict is {verdict.word}")
    try:
        files = read_capture(folder / CAPTURE)
        kernel = model_of(files, verdict.judged_by or Variant.NOWAIT)
        said = predict(read_plan(files), kernel, orders=orders)
    except Exception as exc:  # noqa: BLE001 - one capture must not end what is said of the others
        return Foretold(folder, passed_over=failure_of(exc, Stage.JUDGE).reason)
    return Foretold(folder, outside=unforetold(said, verdict))
