# SPDX-License-Identifier: GPL-2.0-or-later
"""Whose fault is it.  Every error of this project is one of these, drawn once:

    ApfError
    ├── UsageError            bad command line or bad input file              exit 2
    │   ├── ScenarioError     a scenario file says something wrong            exit 2
    │   ├── CatalogError      kernels/catalog.toml says something wrong       exit 2
    │   └── ModelError        an impossible state or unknown kernel was asked exit 2
    │       └── EndlessError  a run of the model goes round
    ├── Unsupported           this host cannot do it; the reason is the text  (verdict UNSUPPORTED)
    ├── KernelFault           a finding about the kernel under test           (verdict FAIL)
    ├── CaptureDamaged        the evidence is incomplete or contradicts itself (verdict INCONCLUSIVE)
    └── InfraFault            our or the machine's fault                      exit 3
        ├── BuildFailed       an artifact could not be built
        ├── HostLost          the host or the link to it went away: outcome unknown
        └── DeadlineExpired   something did not answer in time

The ``hint`` says what the reader can do about it.
"""

from __future__ import annotations

import errno
from types import MappingProxyType


class ApfError(Exception):
    """Base of all errors that this project raises on purpose."""

    exit_code = 3

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  {self.hint}" if self.hint else self.message


class UsageError(ApfError):
    """The person who called us gave something that cannot be used."""

    exit_code = 2


class ScenarioError(UsageError):
    """One or more problems in a scenario file; the message lists all of them with file and key."""


class CatalogError(UsageError):
    """The kernel catalogue or a kernel named on the command line is wrong."""


class ModelError(UsageError):
    """The model was asked about an impossible state or an unknown kernel."""


class EndlessError(ModelError):
    """A run of the model makes more events than any plan is meant to have."""


class Unsupported(ApfError):
    """This host or machine cannot do what was asked; the message is the reason."""


class KernelFault(ApfError):
    """The kernel under test misbehaved: panic, oops, hung task, lockup.

    :ivar said: the line of the kernel's log that tells of it; empty: none does.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", said: str = "") -> None:
        super().__init__(message, hint=hint)
        self.said = said


class CaptureDamaged(ApfError):
    """A capture is incomplete or contradicts itself, so nothing can be concluded from it."""

    exit_code = 1


class InfraFault(ApfError):
    """Our own or the machine's fault."""


class BuildFailed(InfraFault):
    """An artifact could not be made; the message names the file and the command that failed."""


class HostLost(InfraFault):
    """The link to a host, or the host itself, went away; whether the last command ran is unknown."""


class DeadlineExpired(InfraFault):
    """Something did not answer before its deadline."""


_ELSEWHERE = "--results chooses another folder for results, XDG_CACHE_HOME another for kernels and images"
_FULL = f"free space there; {_ELSEWHERE}"
_FORBIDDEN = f"let this user write there; {_ELSEWHERE}"
_BROKEN = f"look at that disk; {_ELSEWHERE}"
REMEDIES = MappingProxyType(
    {
        errno.ENOSPC: _FULL,
        errno.EDQUOT: _FULL,
        errno.EFBIG: _FULL,
        errno.EACCES: _FORBIDDEN,
        errno.EPERM: _FORBIDDEN,
        errno.EROFS: _FORBIDDEN,
        errno.EIO: _BROKEN,
        errno.ESTALE: _BROKEN,
        errno.EMFILE: "allow more open files (ulimit -n)",
        errno.ENFILE: "allow more open files (sysctl fs.file-max)",
        errno.ENOMEM: "free memory, or use fewer hosts at once (--hosts)",
    }
)
"""What can be done about the errors of the operating system that are the machine's fault, by errno."""


def machine_fault(exc: OSError, path: object = None) -> InfraFault | None:
    """An error of the operating system that is the machine's fault, with the path and what can be done about it.

    :param path: what was being written or read, where the error does not say: a write names no file.
    :return: None: it may be a mistake of ours.
    """
    remedy = REMEDIES.get(exc.errno or 0)
    if remedy is None:
        return None
    where = exc.filename or path
    return InfraFault(f"this machine: {f'{where}: ' if where else ''}{exc.strerror}", hint=remedy)
