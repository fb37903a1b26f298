# SPDX-License-Identifier: GPL-2.0-or-later
"""``apf rules``: the rules that a trace is judged by."""

from __future__ import annotations

import argparse
import json

from harness.cli import options
from harness.errors import UsageError
from harness.model.protocol.rules import RULES
from harness.report.rules_text import rule_text

_HELP = """\
List the rules of the protocol between host and guest that every trace is held to: what must hold, on which kernels,
whether a violation fails a scenario by itself (strict) or is only shown (soft), and which kernel function says so.

  apf rules D05 D13        two of them, as a verdict names them
"""


def add(subparsers: options.Subparsers) -> None:
    """Register ``apf rules``."""
    parser = options.command(subparsers, "rules", _HELP)
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
        print("\n".join(rule_text(rule) for rule in chosen))
    return 0
