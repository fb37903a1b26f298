# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys and host words of a gated device in a scenario: what goes with what."""

from __future__ import annotations

from collections.abc import Iterator

from harness.contract.gate import HELD, Rule, parse_rule
from harness.contract.plan import Backing, Swap, SwapKind
from harness.contract.probe_abi import MAX_VCPUS
from harness.contract.words import HostWord, ReadOrder, Release
from harness.errors import ScenarioError, UsageError
from harness.model.delivery import ASYNC_PF_PER_VCPU
from harness.scenario import bounds
from harness.scenario.pages import lay_out, select
from harness.scenario.schema import Scenario


def check_gate(s: Scenario) -> Iterator[str]:
    """Problems of ``release``, ``order``, ``error`` and ``delay_ms``, as "$.key: text"."""
    wrong = list(bounds.prose("$.swap.release", s.swap.release, bounds.MAX_RULE))
    yield from wrong
    if wrong:
        return
    try:
        rule = parse_rule(s.swap.release)
    except UsageError as exc:
        yield f"$.swap.release: {exc.message}"
        return
    yield from bounds.number("$.swap.release", rule.count, 1, ASYNC_PF_PER_VCPU * MAX_VCPUS)
    words = {h.do for steps in (*(t.host for t in s.steps), *(t.host for t in s.timed)) for h in steps}
    if s.swap.kind is not SwapKind.GATED and s.swap.error:
        yield "$.swap.error: only reads of kind = gated can fail"
    if s.swap.kind not in HELD:
        if rule != Rule() or s.swap.order is not ReadOrder.TARGET_LAST:
            yield "$.swap: release and order are for kind = gated or userfaultfd"
        return
    if rule.word is Release.HALTED and rule.count > s.guest.vcpus:
        yield f"$.swap.release: {rule.count} vCPU threads never sleep in a halt, the guest has {s.guest.vcpus}"
    if rule.word is Release.STEP and HostWord.RELEASE not in words:
        yield '$.swap.release: with step, reads end by the host word "release", and there is none'
    if rule.word is not Release.AFTER and s.swap.delay_ms != Swap().delay_ms:
        yield "$.swap.delay_ms: reads that are held take no time, but for release = after"
    if s.swap.error and s.memory.backing is Backing.FILE:
        yield "$.swap.error: one read of a file brings many pages, and all would fail; name pages on swap"


def check_errors(s: Scenario) -> Iterator[str]:
    """The pages that cannot be read must exist; only where the page sets can be placed."""
    try:
        select(lay_out(s.pages), s.swap.error)
    except ScenarioError as exc:
        yield f"$.swap.error: {exc.message}"
