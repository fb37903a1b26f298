# SPDX-License-Identifier: GPL-2.0-or-later
"""The command ``apf``.  Each sub-command is a module of this package with ``add(subparsers)``.

Exit codes: 0 all green; 1 a scenario failed, was inconclusive or unsupported, or showed a finding; 2 bad usage or bad
input; 3 our or the machine's fault; 130 interrupted (Ctrl-C, SIGTERM, or SIGHUP: the terminal was closed).  `apf
bisect-step` answers git, and has codes of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import sys
from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType

from harness.run import ending

COMMANDS: Mapping[str, str] = MappingProxyType({
    "run": "perform scenarios and judge them",
    "list": "list the scenarios",
    "predict": "say what a scenario must lead to on a kernel, and why",
    "explain": "what becomes of one access to one page, function by function",
    "rules": "list the rules that a trace is judged by",
    "judge": "judge an old capture again",
    "compare": "the same scenarios on two kernels, side by side",
    "report": "write the page of a run anew",
    "show": "explain a verdict and draw what happened, or follow a run",
    "validate": "a patch or a tree against its base, in a report fit for a mailing list",
    "bisect-step": "one step of `git bisect run`: good, bad or skip",
    "mutants": "kernels with one deliberate fault each: every one must be caught",
    "explore": "random scenarios: where do kernel and model disagree?",
    "shell": "a shell in a virtual host, to look around",
    "doctor": "what a machine can do, and what it would need",
    "kernels": "list kernels, or make some",
    "images": "make the images of hosts and guests",
    "citations": "which kernel functions that the model cites read differently in a source tree",
    "matrix": "scenarios on many kernels, as a page",
    "history": "what has changed since the last night, and since when",
})  # fmt: skip
"""By name, with the line that says what it is for."""

_DESCRIPTION = """\
Checks that KVM's asynchronous page faults behave as an executable model predicts.

A scenario (TOML) becomes a plan; the plan is performed on a host whose kernel is under test; what was
captured there is decoded and judged against the model.  Start with `apf doctor`, then `apf run S23`.
"""

_EPILOG = """\
exit codes:
  0  everything green                                    2  bad usage or input
  1  failed, inconclusive, unsupported, or a finding     3  our or the machine's fault
                                                       130  interrupted
`apf bisect-step` answers git instead: its --help has the codes.

environment:
  XDG_CACHE_HOME  the store of kernels and images is $XDG_CACHE_HOME/apf (default ~/.cache/apf)
  APF_ACCEL       "kvm" or "tcg": do not find out by itself what runs the virtual host
  APF_DEBUG       set: show tracebacks of errors
"""


class _Version(argparse.Action):
    """Asks git only when it is asked for."""

    def __call__(self, *_: object) -> None:
        from harness.run.own_version import own_version

        print(own_version())
        raise SystemExit(0)


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point; returns the exit code, whatever happens."""
    # Before anything else is loaded: that takes a second on a busy machine, and a Ctrl-C in it is one like any other.
    ending.install()
    try:
        return _ended(argv)
    except KeyboardInterrupt:
        from harness.cli.exit_code import INTERRUPTED, say

        say("apf: interrupted")
        return INTERRUPTED


def _ended(argv: Sequence[str] | None) -> int:
    from harness.cli.exit_code import ExitCode
    from harness.report.unheard import let_go, require_streams

    require_streams()
    words = [*(sys.argv[1:] if argv is None else argv)]  # not list(): that is a module of this package once loaded
    meant = next((word for word in words if not word.startswith("-")), "")
    with ExitCode(meant) as ended:
        ended.code = _called(words, meant)
    for stream in (sys.stdout, sys.stderr):
        let_go(stream)
    return ended.code


def _called(words: Sequence[str], meant: str) -> int:
    """The exit code of the command that these words call."""
    # Only the module of the command that is meant is loaded: SSH and judge cost a second that `apf list` can save, and
    # --help needs none.
    commands = parser({meant} & COMMANDS.keys())
    args = commands.parse_args(words)
    if not hasattr(args, "func"):
        commands.print_help()
        return 0
    code = int(args.func(args) or 0)
    with contextlib.suppress(BrokenPipeError):  # all has been done, and the code is known
        sys.stdout.flush()
    return code


def parser(loaded: Collection[str] = ()) -> argparse.ArgumentParser:
    """The command line: these commands whole, of all others what they are for."""
    top = argparse.ArgumentParser(
        prog="apf", description=_DESCRIPTION, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    top.add_argument("--version", action=_Version, nargs=0, help="say which version this is, with its commit, and exit")
    subparsers = top.add_subparsers(title="commands", metavar="COMMAND")
    for name, about in COMMANDS.items():
        if name in loaded:
            importlib.import_module(f"harness.cli.{name.replace('-', '_')}").add(subparsers)
        else:
            subparsers.add_parser(name, help=about)
    return top
