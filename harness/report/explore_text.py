# SPDX-License-Identifier: GPL-2.0-or-later
"""An exploration as text: how many agreed, what was not decided and why, and what was found."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator

from harness.explore.accord import Agreement
from harness.explore.finds import Exploration

_MOST_REASONS = 12


def explore_lines(found: Exploration) -> Iterator[str]:
    """Plain lines."""
    counts = sum(plan.judged.agreement.counts for plan in found.plans)
    seconds = sum(plan.seconds for plan in found.plans) / max(1, len(found.plans))
    yield (f"{found.kernel}: seed {found.seed}, generation {found.generation}: {len(found.plans)} scenarios performed,"
           f" {counts} of them could fail; {seconds:.1f} s each")  # fmt: skip
    for agreement in Agreement:
        plans = found.of(agreement)
        if plans:
            yield f"{len(plans):6}  {agreement}"
        if agreement is not Agreement.EXACT:
            yield from _reasons(reason for plan in plans for reason in plan.judged.reasons[:1])
    if found.refused:
        yield f"{len(found.refused):6}  not performed, the model has no answer before the run"
        yield from _reasons(each.reason for each in found.refused)
    for plan in found.disagreed:
        yield f"{plan.name}: {' '.join(plan.judged.rules)}: {plan.judged.reasons[0]}"
    for small in found.shrunk:
        shown = f"breaks {small.rule!r} in {small.showed} of {small.repeats}"
        yield f"{small.name} made small in {small.tried} runs: {shown}"
        yield f"    {small.command}"
    yield from found.troubles


def _reasons(reasons: Iterable[str]) -> Iterator[str]:
    """The kinds of reasons, numbers left out, the most frequent first."""
    kinds = Counter(re.sub(r"0x[0-9a-f]+|\d+", "N", reason) for reason in reasons)
    for reason, count in kinds.most_common(_MOST_REASONS):
        yield f"        {count:4}  {reason[:160]}"
