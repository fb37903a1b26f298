# SPDX-License-Identifier: GPL-2.0-or-later
"""What an exploration found, as data: explore.json."""

from __future__ import annotations

from dataclasses import dataclass

from harness.contract.structure import to_json
from harness.explore.accord import Agreement, Judged
from harness.explore.generate import GENERATION


@dataclass(frozen=True, slots=True)
class Explored:
    """A scenario that was performed; ``seconds``: to perform and judge it."""

    name: str
    judged: Judged
    seconds: float


@dataclass(frozen=True, slots=True)
class Refused:
    """A scenario that was not performed, because the model has no answer or says that nothing ends."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Shrunk:
    """The smallest scenario found that breaks the rule that ``name`` broke.

    :ivar command: repeats it.
    :ivar showed: in how many of ``repeats`` runs it broke the rule.
    :ivar tried: runs that this took.
    """

    name: str
    rule: str
    file: str
    command: str
    showed: int
    repeats: int
    tried: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Exploration:
    """All of it.  ``first``: number of the first scenario of the seed; ``troubles``: as in RunResult."""

    kernel: str
    seed: int
    first: int = 0
    generation: int = GENERATION
    plans: tuple[Explored, ...] = ()
    refused: tuple[Refused, ...] = ()
    shrunk: tuple[Shrunk, ...] = ()
    interrupted: bool = False
    seconds: float = 0.0
    troubles: tuple[str, ...] = ()

    @property
    def disagreed(self) -> tuple[Explored, ...]:
        return self.of(Agreement.DISAGREED)

    def of(self, agreement: Agreement) -> tuple[Explored, ...]:
        """The scenarios of which this became."""
        return tuple(plan for plan in self.plans if plan.judged.agreement is agreement)

    @property
    def exit_code(self) -> int:
        """0 all agreed; 1 something disagreed or was inconclusive; 3 errors, troubles, or nothing that proves anything;
        130 interrupted."""
        if self.interrupted:
            return 130
        if self.disagreed or self.of(Agreement.UNDECIDED):
            return 1
        failed = self.troubles or self.of(Agreement.ERROR) or not any(p.judged.agreement.counts for p in self.plans)
        return 3 if failed else 0

    def to_json(self) -> str:
        """The text of explore.json."""
        return to_json(self)
