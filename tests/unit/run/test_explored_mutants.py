# SPDX-License-Identifier: GPL-2.0-or-later
"""What `apf explore --mutants` says of a mistake, by what became of its trials.  What performs them is a stand-in."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from harness.artifacts.catalog import CatalogKernel, SourceKind
from harness.cli.explore import _told
from harness.errors import InfraFault, UsageError
from harness.judge.verdict_types import Stage
from harness.results import Row
from harness.run import explored_mutants, one_performer
from harness.run.exploration import ExploreOrder
from harness.run.explored_mutants import Hunts, explore_mutants
from harness.run.mutant_catalog import require_mutants
from harness.run.mutant_trials import KERNEL, PARAMETER, Catch, Mutant
from harness.run.request import Request
from harness.run.selection import Job
from harness.status import Status
from tests.unit.rows import row_of
from tests.unit.run.test_bad_luck import Listener

ONE = Mutant("ONE", 1, "about", "R1", ("S23",), ("D05",))
PLANS = 3


class Tried:
    """Gives these verdicts, one after the other; the last for all that come behind it."""

    def __init__(self, *words: Status) -> None:
        self.words = list(words)
        self.jobs: list[Job] = []
        self.requests: list[Request] = []

    def perform(self, job: Job) -> Row:
        self.jobs.append(job)
        word = self.words.pop(0) if len(self.words) > 1 else self.words[0]
        stage = Stage.PERFORM if word in (Status.UNSUPPORTED, Status.ERROR) else Stage.JUDGE
        return row_of(job.key, word, "D05: owed" if word is Status.FAIL else "why", stage=stage)


def explored(tried: Tried, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Hunts:
    @contextmanager
    def start(_kernel: str, _jobs: object, request: Request, *_: object) -> Iterator[Tried]:
        tried.requests.append(request)
        yield tried

    monkeypatch.setattr(one_performer, "start_worker", start)
    # The kernel is not built: it would take minutes, and nothing runs on it.
    built = SimpleNamespace(bzimage=tmp_path / "bzImage")
    (tmp_path / "System.map").write_text("ffffffff82a3b1c4 b apf_mutant\n")
    monkeypatch.setattr(explored_mutants.built_kernel, "kernel", lambda *_: built)
    request = Request(kernels=(KERNEL,), results=tmp_path / "results", wrong_kernel=True)
    return explore_mutants(ExploreOrder(seed=3, plans=PLANS), (ONE,), request, Listener(""))[0]


P, F, N, U, E = Status.PASS, Status.FAIL, Status.INCONCLUSIVE, Status.UNSUPPORTED, Status.ERROR


@pytest.mark.parametrize(
    ("words", "catch", "judged", "undecided"),
    [
        ([P], Catch.SURVIVED, PLANS, 0),
        ([U], Catch.UNDECIDED, 0, PLANS),
        ([E], Catch.UNDECIDED, 0, PLANS),
        ([N], Catch.UNDECIDED, 0, PLANS),
        ([U, P, N], Catch.SURVIVED, 1, 2),
        ([P, F, P], Catch.NAMED, 2, 0),
        ([F, F, P], Catch.SURVIVED, 2, 0),
        ([F, N, F, P], Catch.NAMED, 1, 1),
        ([F, E], Catch.UNDECIDED, 0, PLANS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mutant_survives_only_what_could_have_caught_it(
    words: list[Status], catch: Catch, judged: int, undecided: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:  # fmt: skip
    found = explored(Tried(*words), monkeypatch, tmp_path)
    (hunt,) = found.hunts
    assert (hunt.catch, hunt.scenarios, len(hunt.undecided)) == (catch, judged, undecided)
    assert found.exit_code == (0 if catch is Catch.NAMED else 1)
    told = list(_told(hunt))
    assert (catch in told[0]) or catch is Catch.NAMED
    assert any("undecided: " in line for line in told[1:]) is bool(undecided)


def test_what_the_kernel_fails_without_the_mistake_too_is_a_false_alarm(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (hunt,) = explored(Tried(F, F, P), monkeypatch, tmp_path).hunts
    assert len(hunt.false_alarms) == 1 and not hunt.caught_by


def test_each_trial_can_be_repeated_from_its_scenario(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    tried = Tried(F, P)
    explored(tried, monkeypatch, tmp_path)
    assert [job.scenario.kernel_params[PARAMETER] for job in tried.jobs] == ["1", "0"]
    assert [job.scenario.id for job in tried.jobs] == [job.key.scenario for job in tried.jobs]
    assert all(request.wrong_kernel for request in tried.requests)


@pytest.mark.parametrize("source", [SourceKind.PACKAGE, SourceKind.LINUX_SOURCE, SourceKind.BZIMAGE])
def test_a_kernel_without_mistakes_is_refused_as_far_as_that_is_known(source: SourceKind, tmp_path: Path) -> None:
    kernel = CatalogKernel("k", source)
    built = SimpleNamespace(bzimage=tmp_path / "bzImage")
    symbols = tmp_path / "System.map"
    if source is not SourceKind.PACKAGE:
        require_mutants(kernel)
        require_mutants(kernel, built)  # what it has is not known
        symbols.write_text("ffffffff82a3b1c4 b apf_mutant\n")
        require_mutants(kernel, built)
        symbols.write_text("ffffffff82a3b1c4 b apf_mutant_is_not_here\n")
    with pytest.raises(UsageError, match="k has no mistakes in it"):
        require_mutants(kernel, built)


@pytest.mark.parametrize("why", [InfraFault("the host is lost"), KeyboardInterrupt()])
def test_however_it_ends_its_file_is_there(why: BaseException, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Fails(Tried):
        def perform(self, job: Job) -> Row:
            raise why

    interrupted = isinstance(why, KeyboardInterrupt)
    with contextlib.nullcontext() if interrupted else pytest.raises(InfraFault):
        explored(Fails(), monkeypatch, tmp_path)
    written = tmp_path / "results/latest/mutants.json"
    assert json.loads(written.read_text()) == {"seed": 3, "hunts": [], "interrupted": interrupted}
