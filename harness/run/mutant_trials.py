# SPDX-License-Identifier: GPL-2.0-or-later
"""The harness tried on kernels that are known to be wrong: each mutant must be caught, the unmutated kernel be green.

One kernel holds many mutants, written by hand (kernels/patches/mutants) or made systematically (kernels/mutate.toml).
The parameter kvm.apf_mutant selects one at run time, so a mutant is a scenario with one more kernel parameter.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from string import ascii_uppercase

from harness.contract.capture import AgentStep
from harness.contract.words import EndStatus
from harness.errors import CatalogError
from harness.evidence.agent_steps import read_progress
from harness.judge.verdict_types import Stage
from harness.model.protocol.rules import RULES
from harness.results import Key, Row
from harness.run.judge_folder import end_of
from harness.run.request import Observer, Request
from harness.run.runner import perform_jobs
from harness.run.scenario_sources import default_scenarios, read_scenarios
from harness.run.selection import Job
from harness.scenario.schema import Scenario
from harness.status import Status

KERNEL = "mutants-6.1"
PARAMETER = "kvm.apf_mutant"
_ENDS = ("ending", "panic", "stopped")
"""What a guest's end is told by when it hung or died."""
_PATIENCE, _SLACK_S = 4, 4
_UNDECIDED = 2
"""After so many trials without a verdict a mutant is given up: its guest does not come up, or evidence is damaged."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """One mistake.

    :ivar scenarios: those that should catch it, the likeliest first.
    :ivar rules: what names it: "D05", "item:gp", "total:NPt" (Finding.name), or a rule as a whole ("value").
    :ivar hangs: whether the guest hangs or dies; or under which scenarios it does; None: nothing is expected.
    :ivar equivalent: why nobody can notice it; empty where somebody should.
    :ivar out_of_reach: why no guest of the harness can; empty where one should.
    :ivar alone: why scenarios of one kind only (kind_of) can; empty where others should.
    """

    name: str
    number: int
    about: str
    imitates: str
    scenarios: tuple[str, ...]
    rules: tuple[str, ...]
    hangs: bool | frozenset[str] | None = None
    equivalent: str = ""
    out_of_reach: str = ""
    alone: str = ""

    @property
    def live(self) -> bool:
        """Somebody should notice it."""
        return not (self.equivalent or self.out_of_reach)

    @property
    def label(self) -> str:
        """Short, and fit for the id of a scenario."""
        return self.name if self.name.isidentifier() else str(self.number)

    def id_under(self, scenario: str, at_go: bool = False) -> str:
        """The id of a scenario with this mutant in the kernel, from the guest's program on if ``at_go``."""
        return f"{scenario}@{self.label}{'+go' if at_go else ''}"


class Catch(StrEnum):
    """What became of a mutant."""

    NAMED = "caught"  # by a rule that names the fault, and it hung if that was expected, and only then
    OTHERWISE = "caught otherwise"  # a FAIL, but by nothing that names the fault, or with another end than expected
    SURVIVED = "SURVIVED"
    UNDECIDED = "undecided"  # never green, and never a FAIL: nothing could be judged
    NOT_RUN = "not run"  # no scenario reaches it, or none got a verdict
    EQUIVALENT = "equivalent"  # not run: nobody can notice it
    OUT_OF_REACH = "out of reach"  # not run: nothing that this harness sets up can


@dataclass(frozen=True, slots=True)
class Trial:
    """A mutant (None: the unmutated kernel) under one scenario.

    :ivar row: None: no verdict.
    :ivar folder: of the run that performed it.
    :ivar at_go: it was selected when the guest was let go, because under it no guest comes up.
    """

    mutant: Mutant | None
    scenario: str
    row: Row | None
    folder: Path = Path()
    at_go: bool = False

    @property
    def caught(self) -> bool:
        """A FAIL that is no accident of ours: an INCONCLUSIVE or ERROR proves nothing, nor does a host that died while
        it booted: no mistake is selected yet."""
        return self.row is not None and self.row.status is Status.FAIL and self.row.verdict.stage is not Stage.BOOT

    @property
    def evidence(self) -> Path | None:
        """The folder of its verdict; None: there is none."""
        return self.folder / self.row.folder if self.row is not None else None

    @property
    def shown_as(self) -> str:
        """The scenario, and whether the mutant was selected only when the guest was let go."""
        return f"{self.scenario}{' at go' if self.at_go else ''}"

    @property
    def program_s(self) -> float | None:
        """Seconds from letting the guest go to the end of its program, None where progress.jsonl does not say."""
        at = self._steps()
        ends = at.get(AgentStep.GO), at.get(AgentStep.GUEST_ENDED)
        return None if ends[0] is None or ends[1] is None else ends[1] - ends[0]

    def _steps(self) -> dict[AgentStep, float]:
        """When each step of the agent was, on the host's monotonic clock; empty where progress.jsonl does not say."""
        path = self.evidence / "capture/progress.jsonl" if self.evidence is not None else None
        if path is None or not path.is_file():
            return {}
        return {step.step: step.mono for step in read_progress(path.read_bytes())}

    @property
    def names(self) -> tuple[str, ...]:
        """What the verdict's findings are about (Finding.name), each once, the first divergence first; "host" for
        trouble of the host that ended the scenario.  Empty if not caught."""
        if self.row is None or not self.caught:
            return ()
        return tuple(dict.fromkeys(finding.name for finding in self.row.verdict.findings)) or ("host",)

    @property
    def naming(self) -> tuple[str, ...]:
        """Those of ``names`` that name the mutant's fault."""
        wanted = self.mutant.rules if self.mutant is not None else ()
        return tuple(name for name in self.names if name in wanted or name.partition(":")[0] in wanted)

    @property
    def named(self) -> bool:
        """Caught by a rule that names the fault."""
        return bool(self.naming)

    @property
    def rule(self) -> str:
        """What named the fault, or else the protocol rules that were broken, or what the first divergence is about;
        empty if not caught."""
        rules = [name for name in self.names if name in RULES]
        return " ".join(self.naming) or " ".join(rules) or next(iter(self.names), "")

    @property
    def undecided(self) -> bool:
        """What was seen is neither green nor a finding about the kernel, such as a host that fell silent."""
        row = self.row
        if row is None or row.verdict.stage in (Stage.SETUP, Stage.BOOT):
            return False
        return row.status is not Status.FAIL and not row.status.as_predicted

    @property
    def before_go(self) -> bool:
        """Undecided before the guest's program was let go, so that nothing was recorded: no guest comes up, or the host
        itself cannot do what comes before."""
        return self.undecided and AgentStep.GO not in self._steps()

    @property
    def hung(self) -> bool:
        """The guest hung or died: a finding says so, or it had not ended when its deadline came."""
        if self.row is None:
            return False
        end = end_of(self.evidence / "capture") if self.evidence is not None else None
        late = end is not None and end.status in (EndStatus.GUEST_TIMEOUT, EndStatus.QEMU_DIED)
        return late or any(f.rule in _ENDS for f in self.row.verdict.findings)


def kind_of(scenario: str) -> str:
    """What scenarios of one number have in common: "S49", "S49R" and "S49/vcpus=2" are one situation, told apart by a
    backing, a guest or a value."""
    base = scenario.partition("/")[0]
    return base.rstrip(ascii_uppercase) or base


def kinds_that_name(mutant: Mutant, trials: Sequence[Trial]) -> frozenset[str]:
    """The kinds of scenarios under which a mutant was caught by name."""
    return frozenset(kind_of(t.scenario) for t in trials_of(mutant, trials) if t.named)


def trials_of(mutant: Mutant, trials: Sequence[Trial]) -> list[Trial]:
    """Those of this mutant."""
    return [t for t in trials if t.mutant is not None and t.mutant.number == mutant.number]


def end_differs(mutant: Mutant, trials: Sequence[Trial]) -> str:
    """How the guests under a mutant ended otherwise than the mutant says; empty where that fits."""
    caught = [t for t in trials_of(mutant, trials) if t.caught]
    if isinstance(mutant.hangs, frozenset):
        wrong = [t for t in caught if t.hung is not (t.scenario in mutant.hangs)]
        return _end_told(not wrong[0].hung, f" under {wrong[0].scenario}") if wrong else ""
    hung = any(t.hung for t in caught)
    return "" if mutant.hangs is None or not caught or hung is mutant.hangs else _end_told(mutant.hangs)


def _end_told(expected: bool, where: str = "") -> str:
    told = "was expected to hang the guest, and did not" if expected else "hung the guest, which was not expected"
    return told + where


def catch_of(mutant: Mutant, trials: Sequence[Trial]) -> Catch:
    """The best that any of the trials says of a mutant."""
    if not mutant.live:
        return Catch.EQUIVALENT if mutant.equivalent else Catch.OUT_OF_REACH
    mine = trials_of(mutant, trials)
    if any(t.named for t in mine) and not end_differs(mutant, mine):
        return Catch.NAMED
    if any(t.caught for t in mine):
        return Catch.OTHERWISE
    if any(t.row is not None and t.row.status.as_predicted for t in mine):
        return Catch.SURVIVED
    return Catch.UNDECIDED if any(t.undecided for t in mine) else Catch.NOT_RUN


@dataclass(frozen=True, slots=True)
class WantedTrial:
    """A trial to be made."""

    mutant: Mutant | None
    scenario: Scenario
    at_go: bool = False


class MutantTrials:
    """Performs trials and keeps them.

    :param known: trials that need not be made again.
    :ivar trials: all of them, the known ones first.
    :ivar folders: of the runs that were performed.
    :ivar troubles: of these runs, about no scenario: a machine that is not as it was before.
    """

    def __init__(self, request: Request, observer: Observer, kernel: str = KERNEL, known: Sequence[Trial] = ()) -> None:
        self._request = request
        self._observer = observer
        self._kernel = kernel
        self._scenarios = {s.id: s for s in read_scenarios(request.scenario_paths or (default_scenarios(),))}
        self.trials = list(known)
        self.folders: list[Path] = []
        self.troubles: list[str] = []

    def try_unmutated(self, scenarios: Sequence[str]) -> bool:
        """The unmutated kernel under these scenarios.

        :return: False: interrupted (Ctrl-C).
        :raise CatalogError: a scenario does not exist.
        """
        done = {t.scenario for t in self.trials if t.mutant is None}
        return self.perform([WantedTrial(None, s) for s in self._find(dict.fromkeys(scenarios)) if s.id not in done])

    def try_mutants(self, mutants: Sequence[Mutant], *, every: bool = False, catches: int = 1) -> bool:
        """Each mutant under its scenarios, until so many kinds of them (kind_of) have caught it by name.

        One under which no guest comes up is selected when the guest is let go, from then on.

        :param every: do not stop then: the whole table.
        :return: False: interrupted (Ctrl-C).
        :raise CatalogError: a scenario does not exist.
        """
        while wanted := self.wanted(mutants, every=every, catches=catches):
            if not self.perform(wanted):
                return False
        return True

    def wanted(self, mutants: Sequence[Mutant], *, every: bool = False, catches: int = 1) -> list[WantedTrial]:
        """The next trial of each mutant for which something is left to do (``every``: all that are left).

        :raise CatalogError: a scenario does not exist.
        """
        mine = [(t.mutant.number, t) for t in self.trials if t.mutant is not None]
        tried = {(number, t.scenario, t.at_go) for number, t in mine}
        named = Counter(number for number, _ in {(number, kind_of(t.scenario)) for number, t in mine if t.named})
        late = {number for number, t in mine if t.before_go}
        undecided = Counter(number for number, t in mine if t.undecided and (t.at_go or not t.before_go))
        found: list[WantedTrial] = []
        for mutant in mutants:
            if not mutant.live:
                continue
            number, at_go = mutant.number, mutant.number in late
            left = [s for s in self._find(mutant.scenarios) if (number, s.id, at_go) not in tried]
            given_up = undecided[number] >= _UNDECIDED and not named[number]
            if every or (named[number] < catches and not given_up):
                found += [WantedTrial(mutant, s, at_go) for s in (left if every else left[:1])]
        return found

    def perform(self, wanted: Sequence[WantedTrial]) -> bool:
        """Perform trials and keep them.

        :return: False: interrupted (Ctrl-C).
        """
        if not wanted:
            return True
        jobs = [(w, self._job(w)) for w in wanted]
        result, folder = perform_jobs([job for _, job in jobs], self._request, self._observer)
        self.folders.append(folder)
        self.troubles += [trouble for trouble in result.troubles if trouble not in self.troubles]
        rows = {row.key: row for row in result.rows}
        self.trials.extend(Trial(w.mutant, w.scenario.id, rows.get(job.key), folder, w.at_go) for w, job in jobs)
        return not result.interrupted

    def _find(self, names: Sequence[str] | dict[str, None]) -> list[Scenario]:
        absent = sorted(name for name in names if name not in self._scenarios)
        if absent:
            raise CatalogError(f"the mutants name scenarios that do not exist: {', '.join(absent)}")
        return [self._scenarios[name] for name in names]

    def _job(self, wanted: WantedTrial) -> Job:
        mutant, scenario = wanted.mutant, wanted.scenario
        if mutant is None:
            return Job(Key(scenario.id, self._kernel), scenario)
        selected = {PARAMETER: str(mutant.number)}
        if wanted.at_go:
            scenario = replace(scenario, kernel_params_at_go={**scenario.kernel_params_at_go, **selected})
        else:
            scenario = replace(scenario, kernel_params={**scenario.kernel_params, **selected})
        changed = replace(
            scenario,
            id=mutant.id_under(scenario.id, wanted.at_go),
            deadline_s=self._patience(wanted.scenario),
        )
        return Job(Key(changed.id, self._kernel), changed)

    def _patience(self, scenario: Scenario) -> int:
        """Seconds for the guest's program: some times what it took on the unmutated kernel, so that a guest that hangs
        costs little; the scenario's own deadline where that is less, or nothing is known."""
        took = next((t.program_s for t in self.trials if t.mutant is None and t.scenario == scenario.id), None)
        if took is None:
            return scenario.deadline_s
        timed = max((step.at_ms for step in scenario.timed), default=0) / 1000
        return min(scenario.deadline_s, math.ceil(max(_PATIENCE * took, timed)) + _SLACK_S)
