# SPDX-License-Identifier: GPL-2.0-or-later
"""``apf rules``: the rules that a trace is judged by."""

from __future__ import annotations

import argparse
import json
import textwrap

from harness.cli import options
from harness.errors import UsageError
from harness.model.kernels import KERNEL_NAMES, Variant, find_kernel
from harness.model.protocol.rules import RULES, Rule


def add(subparsers: options.Subparsers) -> None:
    """Register ``apf rules``."""
    parser = subparsers.add_parser("rules", help="list the rules that a trace is judged by")
    parser.add_argument("ids", nargs="*", metavar="RULE", help="only these, for instance D13")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(func=run)


def run(args: argparse.Namespace) -> int:
    """Print the rules.  :raise UsageError: an id that does not exist."""
    wanted = [name.upper() for name in args.ids]
    unknown = [name for name in wanted if name not in RULES]
    if unknown:
        raise UsageError(f"no such rule: {', '.join(unknown)}", hint=f"the rules are {min(RULES)} to {max(RULES)}")
    chosen = [RULES[name] for name in wanted] or list(RULES.values())
    if args.json:
        print(json.dumps([rule.as_json() for rule in chosen], indent=2))
    else:
        print("\n".join(_lines(rule) for rule in chosen))
    return 0


def _lines(rule: Rule) -> str:
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
