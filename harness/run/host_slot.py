# SPDX-License-Identifier: GPL-2.0-or-later
"""One usable host at a time for one kernel: booted when it is first needed, replaced when it is tainted."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import TracebackType

from harness.errors import ApfError, InfraFault
from harness.hosts.base import Host
from harness.hosts.performer import Payload, Performer

_GIVE_UP_AFTER = 2  # failed starts in a row: a third would fail like them, and each costs a boot's deadline


class HostSlot:
    """Context manager; on exit the host is gone.  ``trace_dat`` as for Performer."""

    def __init__(
        self, start: Callable[[], AbstractContextManager[Host]], payload: Payload, *, trace_dat: bool = False
    ) -> None:
        self._trace_dat = trace_dat
        self._start = start
        self._payload = payload
        self._stack = contextlib.ExitStack()
        self._host: Host | None = None
        self._performer: Performer | None = None
        self._failures: list[ApfError] = []

    def __enter__(self) -> HostSlot:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.drop()

    @property
    def host(self) -> Host | None:
        """The current host, if there is one."""
        return self._host

    def performer(self) -> Performer:
        """A performer on a clean host.

        :raise InfraFault: the host could not be started twice in a row; the first cause is kept and told each time.
        :raise ApfError: what kept the host from starting this time.
        """
        if self._host is not None and self._host.tainted:
            self.drop()
        if self._performer is None:
            if len(self._failures) >= _GIVE_UP_AFTER:
                first = self._failures[0]
                raise InfraFault(f"no host, given up: {first.message}", hint=first.hint) from first
            try:
                self._host = self._stack.enter_context(self._start())
            except ApfError as exc:
                self._failures.append(exc)
                raise
            self._failures.clear()
            self._performer = Performer(self._host, self._payload, trace_dat=self._trace_dat)
        return self._performer

    def drop(self) -> None:
        """End the current host."""
        if self._performer is not None:
            self._performer.close()
        self._host = self._performer = None
        stack, self._stack = self._stack, contextlib.ExitStack()
        stack.close()
