# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``apf``.  Each sub-command is a module of this package with ``add(subparsers)``.

Exit codes: 0 all green; 1 a scenario failed or was inconclusive; 2 bad usage or bad input; 3 our or the machine's
fault; 130 interrupted (Ctrl-C or SIGTERM).
"""

from __future__ import annotations

import argparse
import importlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from harness.errors import ApfError, InfraFault
from harness.report.printable import printable

COMMANDS = (
    "run", "list", "predict", "explain", "rules", "judge", "compare", "report", "show", "validate", "bisect-step",
    "mutants", "explore", "shell", "doctor", "kernels", "images", "citations", "matrix", "history",
)  # fmt: skip

_DESCRIPTION = """\
Checks that KVM's asynchronous page faults behave as an executable model predicts.

A scenario (TOML) becomes a plan; the plan is performed on a host whose kernel is under test; what was
captured there is decoded and judged against the model.  Start with `apf doctor`, then `apf run S23`.
"""

_EPILOG = """\
exit codes:
  0  everything green        2  bad usage or input       130  interrupted
  1  failed or inconclusive  3  our or the machine's fault

environment:
  XDG_CACHE_HOME  the store of kernels and images is $XDG_CACHE_HOME/apf (default ~/.cache/apf)
  APF_ACCEL       "kvm" or "tcg": do not find out by itself what runs the virtual host
  APF_DEBUG       set: show tracebacks of errors
"""


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends everything in the same order as Ctrl-C."""


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        words = [*(sys.argv[1:] if argv is None else argv)]  # not list(): that is a module of this package once loaded
        # Only the module of the command that is meant is loaded: SSH and judge cost a second that `apf list` can save.
        known = words[0] if words and words[0] in COMMANDS else ""
        commands = parser((known,) if known else COMMANDS)
        args = commands.parse_args(words)
        if not hasattr(args, "func"):
            commands.print_help()
            return 0
        code = args.func(args)
        sys.stdout.flush()
        return int(code or 0)
    except ApfError as exc:
        if os.environ.get("APF_DEBUG"):
            raise
        print(f"apf: {printable(str(exc))}", file=sys.stderr)
        return exc.exit_code
    except KeyboardInterrupt:
        print("apf: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader (a pager, head) has seen enough; nothing must be written to it on the way out.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as exc:
        if os.environ.get("APF_DEBUG"):
            raise
        where = f"{exc.filename}: " if exc.filename else ""
        print(f"apf: {printable(f'{where}{exc.strerror or exc}')}", file=sys.stderr)
        return InfraFault.exit_code


def parser(commands: Sequence[str] = COMMANDS) -> argparse.ArgumentParser:
    """The command line with these commands."""
    top = argparse.ArgumentParser(
        prog="apf", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND")
    for name in commands:
        importlib.import_module(f"harness.cli.{name.replace('-', '_')}").add(subparsers)
    return top


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise Terminated
