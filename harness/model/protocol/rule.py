# SPDX-License-Identifier: GPL-2.0-or-later
"""One rule that every trace of KVM's asynchronous page faults must obey, as data (rules.py has all)."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.events import Kind
from harness.model.kernels import KernelModel

ALL_VARIANTS = ("noio", "nowait")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    :param strict: True: a violation is a kernel bug or a lost event.  False: statistical, a violation is a hint.
    :param needs: the field of KernelModel that must be true for the rule to hold; empty: it holds for every kernel.
    :param variants: variants it holds for; ``sync`` kernels emit none of the events.
    :param source: section of behaviour.md, then file:function in the kernel.
    :param context: fields of RuleContext without which the rule is checked in part, or not at all.
    :param kinds: events that the trace must have recorded for the rule to be checked at all.
    :param partly: True when a part of the rule is checked even without the context fields.
    """

    id: str
    sentence: str
    source: str
    strict: bool = True
    needs: str = ""
    variants: tuple[str, ...] = ALL_VARIANTS
    context: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    partly: bool = False
    note: str = ""

    def holds_for(self, kernel: KernelModel) -> bool:
        """Whether the rule holds for a kernel; a port keeps the protocol of the kernel that it was ported to."""
        return kernel.variant in self.variants and self.behaviour_in(kernel)

    def behaviour_in(self, kernel: KernelModel) -> bool:
        """Whether a kernel, of whatever variant, behaves as the rule needs it."""
        return not self.needs or bool(getattr(kernel, self.needs))

    def as_json(self) -> dict[str, object]:
        """Plain values for ``apf rules --json``."""
        return {
            "id": self.id,
            "sentence": self.sentence,
            "strict": self.strict,
            "needs": self.needs,
            "variants": list(self.variants),
            "source": self.source,
            "context": list(self.context),
            "events": [kind.name for kind in self.kinds],
            "note": self.note,
        }
