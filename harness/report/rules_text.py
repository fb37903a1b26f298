# SPDX-License-Identifier: GPL-2.0-or-later
"""A protocol rule as text."""

from __future__ import annotations

import textwrap

from harness.model.kernels import KERNEL_NAMES, Variant, find_kernel
from harness.model.protocol.rules import Rule


def rule_text(rule: Rule) -> str:
    """The rule with its strictness, its kernels and its source, for a terminal."""
    kind = "strict" if rule.strict else "soft"
    known = [find_kernel(name) for name in KERNEL_NAMES]
    holds = [k.version for k in known if k.variant is Variant.NOWAIT and rule.behaviour_in(k)]
    kernels = ", ".join(holds) + " (" + ", ".join(rule.variants) + ")"
    text = f"{rule.id}  {kind}  {kernels}\n" + textwrap.fill(
        rule.sentence, 100, initial_indent="     ", subsequent_indent="     "
    )
    if rule.note:
        text += "\n" + textwrap.fill(rule.note, 100, initial_indent="     note: ", subsequent_indent="           ")
    return text + f"\n     source: {rule.source}"
