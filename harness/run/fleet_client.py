# SPDX-License-Identifier: GPL-2.0-or-later
"""A fleet of Dask workers (distributed, an extra of this package): the only module that knows it.

A scheduler performs what anybody who reaches it asks for.  So one without TLS, by which both sides know each other, is
refused unless it is of this machine alone.
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from harness.errors import HostLost, InfraFault, UsageError

_CONNECT_S = 30.0
_NO_WORKER_S = 600.0
"""One that comes meanwhile goes on with what is left."""
_ASK_S = 10.0
_RETRIES = 2
"""How often a chunk is tried again whose worker was lost."""
_ADDRESS = re.compile(r"(tls|tcp)://(\[[0-9a-fA-F:]+\]|[A-Za-z0-9._-]+):(\d{1,5})")


@dataclass(frozen=True, slots=True)
class FleetAddress:
    """``address`` as in ``tls://scheduler:8786``; the files are PEM: who signs, and who we are."""

    address: str
    ca: Path | None = None
    cert: Path | None = None
    key: Path | None = None

    def check(self) -> None:
        """:raise UsageError: no address, or a scheduler that others can reach and that knows nobody."""
        found = _ADDRESS.fullmatch(self.address)
        if found is None:
            raise UsageError(f"{self.address!r} is no scheduler", hint="--on tls://HOST:PORT")
        files = (self.ca, self.cert, self.key)
        if found[1] == "tls":
            missing = [name for name, file in zip(("ca", "cert", "key"), files, strict=True) if file is None]
            if missing:
                raise UsageError(f"{self.address} needs {', '.join(f'--tls-{name} FILE' for name in missing)}")
            for file in files:
                if file is not None and not file.is_file():
                    raise UsageError(f"{file} is not a file")
        elif not _is_loopback(found[2].strip("[]")):
            raise UsageError(
                f"{self.address} would let anybody who reaches it run what he wants on the workers",
                hint="start scheduler and workers with TLS, and say tls://; docs/lab.md",
            )
        elif any(file is not None for file in files):
            raise UsageError(f"{self.address} is without TLS: no certificate is asked for", hint="say tls://")


def _is_loopback(host: str) -> bool:
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


@contextlib.contextmanager
def open_fleet(address: FleetAddress) -> Iterator[tuple[Executor, Callable[[], None]]]:
    """An executor whose calls run on the fleet, and a check that raises when the scheduler is lost, or its workers.

    :raise UsageError: see FleetAddress.check.
    :raise InfraFault: distributed is not installed, nobody answers, or there is no worker.
    """
    address.check()
    try:
        from distributed import Client
        from distributed.security import Security
    except ImportError as exc:
        raise InfraFault("--on needs the Python package distributed", hint="pip install 'apf-harness[fleet]'") from exc
    security = None
    if address.address.startswith("tls:"):
        security = Security(
            tls_ca_file=str(address.ca), tls_client_cert=str(address.cert), tls_client_key=str(address.key),
            require_encryption=True,
        )  # fmt: skip
    try:
        client = Client(address.address, security=security, timeout=_CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError) as exc:
        raise InfraFault(f"no scheduler answers at {address.address}: {exc}") from exc
    try:
        if not client.scheduler_info()["workers"]:
            raise InfraFault(f"the scheduler {address.address} has no workers")
        had = asked = time.monotonic()

        def check() -> None:
            nonlocal had, asked
            if client.status != "running":
                raise HostLost(f"the scheduler {address.address} is lost ({client.status})")
            if (now := time.monotonic()) < asked + min(_ASK_S, _NO_WORKER_S):
                return
            asked = now
            if client.scheduler_info()["workers"]:
                had = now
            elif now >= had + _NO_WORKER_S:
                raise HostLost(f"the scheduler {address.address} has had no worker for {_NO_WORKER_S:g} s")

        executor = client.get_executor(retries=_RETRIES, pure=False)
        try:
            yield executor, check
        finally:
            executor.shutdown(wait=False)  # what is at work is not waited for: see is_given_up()
    finally:
        client.close(timeout=5)


def is_given_up() -> bool:
    """Whether nobody waits any more for the task that this thread of a worker performs: who asked for it was
    interrupted, or has died.  False in any other thread.

    Dask cannot end a task that is at work, and goes on with the next one when it has ended: so it has to ask.
    """
    if "distributed" not in sys.modules:
        return False
    from distributed import get_worker
    from distributed.worker import thread_state

    try:
        worker = get_worker()
    except ValueError:
        return False
    task = worker.state.tasks.get(thread_state.key)
    return task is None or task.state == "cancelled"
