# SPDX-License-Identifier: GPL-2.0-or-later
"""The journal of everything the agent changes on the host, and how each change is taken back.

Each change is written to the journal and flushed to the disk before it is made, so whatever kills the agent,
``agent.pyz undo --journal FILE`` finds it.  Changes are taken back last first, but before all else whoever sleeps on a
device of ours is let go: processes would not end, and swapoff(2) and umount(2) would sleep there too.  An undo may find
its change not made, or taken back already by the kernel (a cgroup that vanished): that is success.  Lines of the file:
``{"n": 3, "kind": "swap", "device": "..."}`` for a change, ``{"undone": 3}`` when it is taken back.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import time
from collections.abc import Callable, Container, Mapping
from functools import partial

from harness.agent.gate import leave
from harness.agent.host import dm, loaded_modules, loop, syscalls
from harness.agent.host.bounded import within
from harness.agent.host.caught import Caught, in_words
from harness.agent.host.kernel_files import append_text, read_text, write_text
from harness.errors import ApfError, InfraFault

UNDO_SECONDS = 30.0
"""How long one change may resist (a busy device, a process in D state) before undo goes on to the next."""


class Journal:
    """The file of changes.  ``change`` before the change is made; ``undo_all`` at the end, whatever happened."""

    def __init__(self, path: str) -> None:
        self.path = path
        self._next = max((int(str(c["n"])) for c in pending(path, everything=True)), default=0) + 1

    def change(self, kind: str, **args: str | int) -> int:
        """Note that a change of this kind is about to be made; durable when this returns.  Returns its number."""
        if kind not in _UNDO:
            raise ValueError(f"no undo for {kind!r}")
        number, self._next = self._next, self._next + 1
        _append(self.path, {"n": number, "kind": kind, **args})
        return number

    def write(self, path: str, value: str, old: str | None = None) -> None:
        """Write ``value`` to a sysctl-like file and remember what was there (or ``old``); no-op if it is there already.

        :raise OSError: the kernel refused.
        """
        before = read_text(path).strip() if old is None else old
        if before != value:
            self.change("write", path=path, old=before)
            write_text(path, value)

    def undo_all(self, seconds: float = UNDO_SECONDS) -> list[str]:
        """Take back everything still pending; returns what could not be, in words (empty: clean)."""
        return undo(self.path, seconds)


def pending(path: str, *, everything: bool = False) -> list[dict[str, object]]:
    """Changes of a journal that are not taken back, oldest first.  A torn last line is no change: it was not made."""
    if not os.path.exists(path):
        return []
    changes: dict[int, dict[str, object]] = {}
    for line in read_text(path).splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if "undone" in record:
            if not everything:
                changes.pop(record["undone"], None)
        else:
            changes[record["n"]] = record
    return [changes[n] for n in sorted(changes)]


def undo(path: str, seconds: float = UNDO_SECONDS, but: Container[str] = ()) -> list[str]:
    """Take back the pending changes of a journal, last first; returns what could not be, in words.

    A device whose file system or swap area resists stays: without it the kernel would write errors, which would be
    taken for the machine's, about what it could not let go of.

    :param but: paths of journals that are left out where this one names them.
    """
    failures = []
    in_use = ""
    let_go(path)
    for record in reversed(pending(path)):
        kind, args = str(record["kind"]), _arguments(record)
        if kind == "journal" and args.get("path") in but:
            continue
        problem = in_use if kind in _DEVICES and in_use else _attempt(_UNDO, kind, args, seconds)
        if problem and kind in _USERS:
            in_use = "left where it is: it is in use"
        if problem:
            failures.append(f"{record['kind']} {json.dumps(args)}: {problem}")
        else:
            # A full disk: what is taken back already will be so once more, which does no harm.
            with contextlib.suppress(OSError):
                _append(path, {"undone": record["n"]})
    return failures


def let_go(path: str) -> None:
    """Let everybody go on who sleeps on a device of a journal's pending changes; never raises."""
    for record in pending(path):
        if str(record["kind"]) in _LET_GO:
            _attempt(_LET_GO, str(record["kind"]), _arguments(record), 0)


def _arguments(record: dict[str, object]) -> dict[str, object]:
    return {k: v for k, v in record.items() if k not in ("n", "kind")}


def _attempt(table: Mapping[str, Callable[..., None]], kind: str, args: dict[str, object], seconds: float) -> str:
    """Run one undo until it works or the time is over; returns the last problem, "" when it worked.

    Whatever it raises, also for a kind that another version of the agent has noted: the others are undone.
    """
    end = time.monotonic() + seconds
    while True:
        with Caught() as caught:
            table[kind](**args)
        if caught.error is None:
            return ""
        if time.monotonic() > end:
            expected = isinstance(caught.error, OSError | ApfError)
            return str(caught.error) if expected else in_words(caught.error)
        time.sleep(0.05)


def _append(path: str, record: dict[str, object]) -> None:
    """:raise OSError: the record may not be on the disk whole; a later one begins a new line."""
    line = f"\n{json.dumps(record)}\n".encode()
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        if os.write(fd, line) < len(line):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)
        os.fsync(fd)
    finally:
        os.close(fd)


def _gone_is_fine(call: Callable[[], None], *also: int) -> None:
    try:
        call()
    except OSError as exc:
        if exc.errno not in (errno.ENOENT, errno.ENODEV, *also):
            raise


def _undo_write(path: str, old: str) -> None:
    _gone_is_fine(lambda: write_text(path, old))


def _undo_dm(name: str) -> None:
    if dm.exists(name):
        dm.remove(name)


def _undo_hold(name: str, device: str, sectors: int) -> None:
    """Reads held by the delay device keep QEMU from dying (D state, or kvm waiting for its workers): let them go."""
    if dm.exists(name):
        dm.set_delay(name, device, sectors, 0)


def _undo_swap(device: str) -> None:
    """A kernel that has lost count of a slot's users looks for them for ever (mm/swapfile.c:try_to_unuse)."""
    swapoff = partial(syscalls.swapoff, device)
    _gone_is_fine(lambda: within(UNDO_SECONDS, swapoff, f"swapoff {device}"), errno.EINVAL)


def _undo_cgroup(path: str) -> None:
    """Kill what is below (cgroup v2 cgroup.kill, 5.14; one by one before), then remove the group and its children."""
    if not os.path.isdir(path):
        return
    try:
        write_text(f"{path}/cgroup.kill", "1")
    except FileNotFoundError:
        for pid in _processes(path):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    for entry in sorted(os.listdir(path)):
        if os.path.isdir(f"{path}/{entry}"):
            _undo_cgroup(f"{path}/{entry}")
    _gone_is_fine(lambda: os.rmdir(path))


def _processes(group: str) -> list[int]:
    try:
        return [int(word) for word in read_text(f"{group}/cgroup.procs").split()]
    except FileNotFoundError:
        return []


def _undo_instance(path: str) -> None:
    if os.path.isdir(path):
        write_text(f"{path}/tracing_on", "0")
        write_text(f"{path}/events/enable", "0")
        _gone_is_fine(lambda: os.rmdir(path))


def _undo_kprobe(tracing: str, name: str) -> None:
    if any(f":{name} " in line for line in read_text(f"{tracing}/kprobe_events").splitlines()):
        append_text(f"{tracing}/kprobe_events", f"-:{name}\n")


def _undo_mount(path: str) -> None:
    _gone_is_fine(lambda: syscalls.umount(path), errno.EINVAL)


def _undo_zram(name: str) -> None:
    _gone_is_fine(lambda: write_text(f"/sys/block/{name}/reset", "1"))


def _undo_journal(path: str) -> None:
    """What is still pending in another journal.  One that is gone was clean: who removes one has seen that it is (hosts
    by PlanServed.undone, reservations and agents by what undo() says)."""
    problems = undo(path)
    if problems:
        raise InfraFault("; ".join(problems))


def _undo_directory(path: str) -> None:
    _gone_is_fine(lambda: os.rmdir(path))


def _undo_file(path: str) -> None:
    _gone_is_fine(lambda: os.unlink(path))


def _undo_kexec() -> None:
    """A kernel that stays loaded is booted by whoever reboots the machine next (systemctl reboot)."""
    _gone_is_fine(syscalls.kexec_unload, errno.ENOSYS)


_LET_GO: dict[str, Callable[..., None]] = {"nbd": leave.let_go, "userfaultfd": leave.end_server}
"""Kinds of change that others may sleep on."""
_USERS, _DEVICES = frozenset({"mount", "swap"}), frozenset({"nbd", "dm", "hold", "zram", "loop"})
"""What is on a device, and what the device is, or lies below it."""
_UNDO: dict[str, Callable[..., None]] = {
    "nbd": leave.take_back,
    "userfaultfd": leave.end_server,
    "write": _undo_write,
    "dm": _undo_dm,
    "hold": _undo_hold,
    "swap": _undo_swap,
    "cgroup": _undo_cgroup,
    "instance": _undo_instance,
    "kprobe": _undo_kprobe,
    "mount": _undo_mount,
    "zram": _undo_zram,
    "loop": loop.detach,
    "module": loaded_modules.unload,
    "journal": _undo_journal,
    "directory": _undo_directory,
    "file": _undo_file,
    "kexec": _undo_kexec,
}
