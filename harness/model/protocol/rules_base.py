# SPDX-License-Identifier: GPL-2.0-or-later
"""What a rule of the protocol is: a sentence, the kernels it is true for, the source that makes it true."""

from __future__ import annotations

from dataclasses import dataclass

from harness.model.events import Kind

ALL_SERIES = ("5.10", "6.1", "6.12")
ALL_VARIANTS = ("noio", "nowait")


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    :param strict: True: a violation is a kernel bug or a lost event.  False: statistical, a violation is a hint.
    :param series: kernel series it holds for (behaviour.md read 5.10.262, 6.1.192 and 6.12.117).
    :param variants: variants it holds for; ``sync`` kernels emit none of the events.
    :param source: section of behaviour.md, then file:function in the kernel.
    :param context: fields of protocol_types.Context without which the rule is checked in part, or not at all.
    :param kinds: events that the trace must have recorded for the rule to be checked at all.
    :param partly: True when a part of the rule is checked even without the context fields.
    """

    id: str
    sentence: str
    source: str
    strict: bool = True
    series: tuple[str, ...] = ALL_SERIES
    variants: tuple[str, ...] = ALL_VARIANTS
    context: tuple[str, ...] = ()
    kinds: tuple[Kind, ...] = ()
    partly: bool = False
    note: str = ""

    def applies_to(self, series: str, variant: str) -> bool:
        """Whether the rule holds for a kernel series ("6.1") and variant ("nowait").

        A port of the mailing-list series keeps the protocol of the kernel it was ported to; a series that is not
        in behaviour.md (a developer's own tree) is held to every rule.
        """
        return variant in self.variants and (series in self.series or series not in ALL_SERIES)

    def as_json(self) -> dict[str, object]:
        """Plain values for ``apf rules --json``."""
        return {
            "id": self.id,
            "sentence": self.sentence,
            "strict": self.strict,
            "series": list(self.series),
            "variants": list(self.variants),
            "source": self.source,
            "context": list(self.context),
            "events": [kind.name for kind in self.kinds],
            "note": self.note,
        }
