# SPDX-License-Identifier: GPL-2.0-or-later
"""From what has ended a command to its message and its exit code."""

from __future__ import annotations

import os
import sys
import traceback
from types import TracebackType

from harness.errors import ApfError, InfraFault, UsageError, machine_fault
from harness.report.printable import printable
from harness.report.unheard import let_go
from harness.run import ending

PERFORMING = frozenset({"run", "compare", "validate", "bisect-step", "mutants", "explore", "matrix"})
"""Commands that perform scenarios.  They go on to their end when nobody reads what they print, and their exit code is
what came of it; all others print, and are through when nobody reads it."""

INTERRUPTED = 130
NO_ANSWER = 128
"""git-bisect(1), of what `git bisect run` runs: 0 is good, 125 is skip, anything else below 128 is bad; 128 and above
end the bisection.  No error is to be taken for a verdict about a revision."""


class ExitCode:
    """A context manager around a command; ``code`` is its exit code when an exception has ended it.

    :param command: its name; empty: none was given.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        self.code = 0

    def __enter__(self) -> ExitCode:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, _traceback: TracebackType | None
    ) -> bool:
        """Tell what it was; nothing that a command raises goes further, and no signal changes what came of it."""
        ending.ignore()
        match exc:
            case None:
                return False
            case KeyboardInterrupt():
                say("apf: interrupted")
                self.code = INTERRUPTED
            case SystemExit():  # of argparse, which has told why; 0: --help, --version
                self.code = self._of_error(UsageError.exit_code) if exc.code else 0
            case BrokenPipeError() if self._command not in PERFORMING:
                self.code = 0  # the reader (a pager, head) has seen enough
            case _:
                self.code = self._of_error(_told(exc))
        return True

    def _of_error(self, code: int) -> int:
        """What an error means to whoever called the command."""
        if self._command != "bisect-step":
            return code
        whose = "bad usage or input" if code == UsageError.exit_code else "our or the machine's fault"
        say(
            f"apf: {whose}, and no answer about this revision: git ends the bisection here (exit code {NO_ANSWER}).\n"
            "  Mend that, then say the same `git bisect run` again: it goes on where it was."
        )
        return NO_ANSWER


def _told(exc: BaseException) -> int:
    """Say what has gone wrong; the exit code that it means."""
    if os.environ.get("APF_DEBUG") or not isinstance(exc, (ApfError, OSError)):
        say("".join(traceback.format_exception(exc)).rstrip())
    if isinstance(exc, ApfError):
        text, code = str(exc), exc.exit_code
    elif isinstance(exc, OSError):
        where = f"{exc.filename}: " if exc.filename else ""
        text, code = str(machine_fault(exc) or f"{where}{exc.strerror or exc}"), InfraFault.exit_code
    else:
        text, code = f"bug in the harness: {type(exc).__name__}: {exc}", InfraFault.exit_code
    say(f"apf: {printable(text)}")
    return code


def say(text: str) -> None:
    """A message for whoever still reads them."""
    try:
        print(text, file=sys.stderr)
    except OSError:
        let_go(sys.stderr)
