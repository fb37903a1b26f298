# SPDX-License-Identifier: GPL-2.0-or-later
"""Configuration fragments: what they want, why, and whether a finished .config gives it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_SET = re.compile(r"^CONFIG_(?P<symbol>\w+)=(?P<value>.*)$")
_UNSET = re.compile(r"^# CONFIG_(?P<symbol>\w+) is not set$")
_ESSENTIAL = {"KVM": ("KVM",), "KVM_AMD or KVM_INTEL": ("KVM_AMD", "KVM_INTEL")}


@dataclass(frozen=True, slots=True)
class Wanted:
    """One symbol that a fragment asks for.

    ``value`` is spelled as in a .config ("n" for "is not set"); ``reason`` is the comment above it.
    """

    symbol: str
    value: str
    fragment: str
    reason: str


def parse(text: str) -> dict[str, str]:
    """The symbols of a .config or a fragment; "is not set" is "n"."""
    found = {}
    for line in text.splitlines():
        if match := _SET.match(line):
            found[match["symbol"]] = match["value"]
        elif match := _UNSET.match(line):
            found[match["symbol"]] = "n"
    return found


def wanted(fragments: Iterable[tuple[str, str]]) -> dict[str, Wanted]:
    """What fragments (name, text) ask for together; a later one overrides an earlier one."""
    found: dict[str, Wanted] = {}
    for name, text in fragments:
        comment: list[str] = []
        after_symbol = True
        for line in text.splitlines():
            symbols = parse(line)
            if line.startswith("#") and not symbols:
                # A comment right after symbols begins a new group.
                comment = [] if after_symbol else comment
                comment.append(line.lstrip("# ").rstrip())
                after_symbol = False
            elif not line.strip():
                comment, after_symbol = [], True
            for symbol, value in symbols.items():
                found[symbol] = Wanted(symbol, value, name, " ".join(comment).strip(" -"))
                after_symbol = True
    return found


def missing(config: str, wishes: Mapping[str, Wanted]) -> list[Wanted]:
    """The wishes that a finished .config does not grant."""
    have = parse(config)
    return [wish for wish in wishes.values() if have.get(wish.symbol, "n") != wish.value]


def complain(config: str, wishes: Iterable[Wanted]) -> str:
    """One line for each wish that was not granted: symbol, what came instead, fragment and reason."""
    have = parse(config)
    return "\n".join(
        f"  CONFIG_{wish.symbol}={wish.value} of {wish.fragment} became {have.get(wish.symbol, 'n')}"
        + (f" (wanted for: {wish.reason})" if wish.reason else "")
        for wish in wishes
    )


def lacks(config: str) -> list[str]:
    """What a kernel must have built in to be a host at all, and has not."""
    have = parse(config)
    return [name for name, symbols in _ESSENTIAL.items() if not any(have.get(symbol) == "y" for symbol in symbols)]
