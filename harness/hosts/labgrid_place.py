# SPDX-License-Identifier: GPL-2.0-or-later
"""A place of labgrid as a machine of the lab: its coordinator says who has it, and where it is.  The only module that
knows labgrid (an extra of this package).

The file of lab machines has an entry of the same name, with the coordinator and everything by which the machine is
known: a coordinator has neither TLS nor passwords, so it may name an address and is believed in nothing else.

The place is acquired for the run, under a name that tells which process has it, and released at its end.  labgrid keeps
a place acquired whatever becomes of who acquired it, so one that a killed run of this machine has left is released by
the next.  One that this user has acquired by ``labgrid-client`` is used, and left acquired.
"""

from __future__ import annotations

import contextlib
import getpass
import os
import queue
import re
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.errors import HostLost, InfraFault, UsageError
from harness.hosts import HostOpener, HostOrder
from harness.hosts.lab_file import LabHost, find_lab_host
from harness.hosts.reservation import HostBusy
from harness.hosts.ssh import prepare_way
from harness.progress import Progress

_ANSWER_S = 30.0
_LOOK_S = 2.0
_SERVICE = "NetworkService"
_OURS = re.compile(r"(?P<host>[^/]+)/apf-(?P<pid>\d+)-(?P<started>\d+)")
_ADDRESS = re.compile(r"[A-Za-z0-9:][A-Za-z0-9.:_-]*")


@dataclass(slots=True)
class _Seen:
    """What the coordinator has told so far: places by name, resources by "exporter/group/name"."""

    places: dict[str, Any] = field(default_factory=dict)
    resources: dict[tuple[str, str, str], Any] = field(default_factory=dict)


class Coordinator:
    """A session with a coordinator; made by open_coordinator().

    Every method that asks it: :raise HostLost: it does not answer, or has gone.
    """

    def __init__(self, address: str, stub: Any, messages: Any, session: str) -> None:
        self.session = session
        self._address = address
        self._stub = stub
        self._messages = messages
        self._out: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._seen = _Seen()
        self._syncs = 0
        with self._losing():
            self._in = stub.ClientStream(iter(self._out.get, None), timeout=None)
            from labgrid.util import labgrid_version

            self._send(startup=messages.StartupDone(version=labgrid_version(), name=session))
            self._send(subscribe=messages.Subscribe(all_places=True))
            self._send(subscribe=messages.Subscribe(all_resources=True))

    def place(self, name: str) -> Any:
        """What is known of a place now.  :raise UsageError: there is none."""
        self._sync()
        found = self._seen.places.get(name)
        if found is None:
            known = ", ".join(sorted(self._seen.places)) or "none"
            raise UsageError(f"the coordinator {self._address} has no place {name!r}", hint=f"it has {known}")
        return found

    def service(self, name: str) -> tuple[str, int]:
        """Address and port of an acquired place.

        :raise InfraFault: it has no NetworkService, or several, or says something that is no address.
        """
        acquired = {tuple(path.split("/")) for path in self.place(name).acquired_resources}
        found = [
            resource
            for (exporter, group, resource_name), resource in self._seen.resources.items()
            if resource.cls == _SERVICE and (exporter, group, _SERVICE, resource_name) in acquired
        ]
        if len(found) != 1:
            raise InfraFault(f"the place {name} has {len(found) or 'no'} {_SERVICE}, and needs one")
        params = found[0].params
        address = params["address"].string_value if "address" in params else ""
        port = int(params["port"].uint_value) if "port" in params else 22
        if not _ADDRESS.fullmatch(address) or not 0 < port < 1 << 16:
            raise InfraFault(f"the coordinator says that {name} is at {address!r}, port {port}: that is no address")
        return address, port

    def acquire(self, name: str) -> bool:
        """Try to; False: somebody was faster."""
        import grpc

        try:
            self._stub.AcquirePlace(self._messages.AcquirePlaceRequest(placename=name), timeout=_ANSWER_S)
        except grpc.RpcError as exc:
            if exc.code() is grpc.StatusCode.FAILED_PRECONDITION and "already acquired" in exc.details():
                return False
            raise InfraFault(f"the place {name} cannot be acquired: {exc.details()}") from exc
        return True

    def release(self, name: str, session: str) -> None:
        """Only if that session has it; never raises for one that has it no more."""
        with self._losing():
            self._stub.ReleasePlace(
                self._messages.ReleasePlaceRequest(placename=name, fromuser=session), timeout=_ANSWER_S
            )

    def close(self) -> None:
        """End the session; never raises."""
        self._out.put(None)
        with contextlib.suppress(Exception):
            self._in.cancel()

    def _send(self, **kind: Any) -> None:
        self._out.put(self._messages.ClientInMessage(**kind))

    def _sync(self) -> None:
        """Take in all that the coordinator has told until now."""
        self._syncs += 1
        self._send(sync=self._messages.Sync(id=self._syncs))
        with self._losing():
            for message in self._in:
                for update in message.updates:
                    self._take(update)
                if message.HasField("sync") and message.sync.id == self._syncs:
                    return
        raise HostLost(f"the coordinator {self._address} has ended the session")

    def _take(self, update: Any) -> None:
        match update.WhichOneof("kind"):
            case "place":
                self._seen.places[update.place.name] = update.place
            case "del_place":
                self._seen.places.pop(update.del_place, None)
            case "resource":
                self._seen.resources[_path(update.resource.path)] = update.resource
            case "del_resource":
                self._seen.resources.pop(_path(update.del_resource), None)

    @contextlib.contextmanager
    def _losing(self) -> Iterator[None]:
        import grpc

        try:
            yield
        except grpc.RpcError as exc:
            raise HostLost(f"the coordinator {self._address} does not answer: {exc.details()}") from exc


def _path(path: Any) -> tuple[str, str, str]:
    return path.exporter_name, path.group_name, path.resource_name


@contextlib.contextmanager
def open_coordinator(address: str) -> Iterator[Coordinator]:
    """A session under a name of this process.

    :raise InfraFault: labgrid is not installed.  :raise HostLost: nobody answers.
    """
    try:
        import grpc
        from labgrid.remote.generated import labgrid_coordinator_pb2, labgrid_coordinator_pb2_grpc
    except ImportError as exc:
        raise InfraFault(
            "--host labgrid: needs the Python package labgrid", hint="pip install 'apf-harness[labgrid]'"
        ) from exc
    with grpc.insecure_channel(address) as channel:
        try:
            grpc.channel_ready_future(channel).result(timeout=_ANSWER_S)
        except grpc.FutureTimeoutError as exc:
            raise HostLost(f"no coordinator answers at {address}") from exc
        stub = labgrid_coordinator_pb2_grpc.CoordinatorStub(channel)
        session = f"{_host_name()}/apf-{os.getpid()}-{_started(os.getpid())}"
        with contextlib.closing(Coordinator(address, stub, labgrid_coordinator_pb2, session)) as coordinator:
            yield coordinator


@contextlib.contextmanager
def acquired(entry: LabHost, wait_s: float, progress: Progress) -> Iterator[LabHost]:
    """The place that an entry names, for us, until the context ends: the entry with the address that it has now.

    :raise HostBusy: somebody else has it, and has not released it in ``wait_s`` seconds.
    :raise UsageError: there is no such place.  :raise InfraFault, HostLost: see Coordinator.
    """
    with open_coordinator(entry.coordinator) as coordinator:
        by_hand = f"{_host_name()}/{os.environ.get('LG_USERNAME', getpass.getuser())}"
        end = time.monotonic() + wait_s
        while True:
            holder = coordinator.place(entry.name).acquired
            if holder and _is_left_over(holder):
                coordinator.release(entry.name, holder)
                continue
            if holder == by_hand or (not holder and coordinator.acquire(entry.name)):
                break
            if time.monotonic() >= end:
                raise HostBusy(
                    f"the place {entry.name} is acquired by {holder or 'somebody'}",
                    hint="--wait SECONDS waits for its end; labgrid-client release --kick takes it away",
                )
            progress(f"waiting for the place {entry.name}, which is acquired by {holder}")
            time.sleep(min(_LOOK_S, max(0.0, end - time.monotonic())))
        try:
            address, port = coordinator.service(entry.name)
            yield replace(entry, address=address, port=port)
        finally:
            if holder != by_hand:
                coordinator.release(entry.name, coordinator.session)


def _host_name() -> str:
    return os.environ.get("LG_HOSTNAME", socket.gethostname())


def _is_left_over(holder: str) -> bool:
    """A run of this machine had it whose process is dead."""
    found = _OURS.fullmatch(holder)
    return found is not None and found["host"] == _host_name() and _started(int(found["pid"])) != found["started"]


def _started(pid: int) -> str:
    """When a process that lives was started, in clock ticks since boot; empty: it is dead."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].split()
    except OSError:
        return ""
    return "" if state in "ZX" else fields[18]  # proc(5): state is field 3, starttime field 22


def prepare(order: HostOrder) -> HostOpener:
    """Ask the machine of the place what it runs; the place is ours meanwhile, and again while there is a host.

    :raise ApfError: see acquired() and ssh.connect().
    """
    *way, entry = find_lab_host(order.lab, order.name)
    if not entry.coordinator:
        raise UsageError(f"{order.lab}: {order.name} has no coordinator, so it is no place of labgrid")

    @contextlib.contextmanager
    def whole_way() -> Iterator[tuple[LabHost, ...]]:
        with acquired(entry, order.wait_s, order.progress) as found:
            yield (*way, found)

    return prepare_way(order, whole_way)
