# SPDX-License-Identifier: GPL-2.0-or-later
"""What an ordinary user may have the agent do who runs it by sudo: a closed list (docs/security.md).

sudo tells who called (SUDO_UID; sudo(8)), and the caller cannot leave that out.  Such a caller chooses a plan, and
files that are his own.  He chooses no path that is written, no parameter of a module other than KVM and zswap, no disk
that root has not listed, no program that runs as root.  His files are copied before they are used: what was looked at
is what is used.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from harness.agent.host.kernel_files import find_mount, read_text
from harness.contract.plan import GuestKind, Plan
from harness.contract.service import AgentOptions
from harness.errors import UsageError

RUNS = "/run/apf-runs"
"""Where runs have their folders."""
INBOX = "in"
"""Folder of a run in which the caller puts his files; it is his own, its parent is root's."""
DISKS = "/etc/apf/disks"
"""A block device on each line: those that runs may overwrite."""
_MOST_BYTES = 1 << 30
_CAPTURE = re.compile(r"[0-9a-f]{16}")
_WORD = re.compile(r"[A-Za-z0-9,+=_.:-]*")
_MACHINES = ("microvm", "q35")
_MODULES = ("kvm", "kvm_amd", "kvm_intel", "zswap")
"""Whose parameters a plan may set: what scenarios are about.  Others name the folder of firmware (firmware_class), or
say whether a rule holds that is for everybody (apparmor)."""


def caller(environment: Mapping[str, str] = os.environ) -> int | None:
    """The user who runs us by sudo; None: root himself does."""
    uid = environment.get("SUDO_UID", "")
    return int(uid) if uid.isdigit() and uid != "0" else None


def make_inbox(folder: str, uid: int) -> None:
    """The place for the caller's files below a run's folder. :raise OSError:"""
    os.mkdir(f"{folder}/{INBOX}", 0o700)
    os.chown(f"{folder}/{INBOX}", uid, -1)
    os.chmod(folder, 0o755)


def check_place(scope: str, folder: str) -> None:
    """:raise UsageError: that is not the folder of a run, or not its scope."""
    if os.path.dirname(folder) != RUNS or not os.path.isdir(f"{folder}/{INBOX}"):
        raise UsageError(f"{folder} is not the folder of a run")
    if scope != f"{find_mount('cgroup2')}/apf-run-{os.path.basename(folder)}":
        raise UsageError(f"{scope} is not the scope of this run")


def allowed(plan: Plan, options: AgentOptions, folder: str, uid: int, disks: str = DISKS) -> AgentOptions:
    """The same options, with copies of the caller's files.

    :param folder: of the run.
    :raise UsageError: what is asked for is not on the list.
    """
    if plan.guest.kind is GuestKind.HOST_PROGRAM or options.program:
        raise UsageError("host programs run as root: not for those who come by sudo")
    default = AgentOptions("")
    for name in ("qemu", "accel", "journal", "scratch"):
        if getattr(options, name) != getattr(default, name):
            raise UsageError(f"the option {name} is not for those who come by sudo")
    if os.path.dirname(options.out) != folder or not _CAPTURE.fullmatch(os.path.basename(options.out)):
        raise UsageError(f"{options.out} is no place for a capture of this run")
    guest = plan.guest
    if guest.machine not in _MACHINES or not _WORD.fullmatch(guest.cpu) or not _WORD.fullmatch(guest.irqchip):
        raise UsageError("the guest's machine has options that are not for those who come by sudo")
    for parameter, _ in (*plan.kernel_params, *plan.kernel_params_at_go):
        if parameter.partition(".")[0] not in _MODULES:
            raise UsageError(f"the module parameter {parameter} is not for those who come by sudo")
    _check_disk(options.disk, disks)
    os.makedirs(f"{folder}/taken", mode=0o700, exist_ok=True)
    files = {name: getattr(options, name) for name in ("probe", "guest_kernel", "guest_initrd")}
    copies = {name: _copy(path, folder, uid) if path else "" for name, path in files.items()}
    return replace(
        options, probe=copies["probe"], guest_kernel=copies["guest_kernel"], guest_initrd=copies["guest_initrd"]
    )


def _check_disk(disk: str, disks: str) -> None:
    """:raise UsageError: root has not listed it, and it is no loop device of a run's own."""
    if not disk or _is_runs_own(disk):
        return
    listed: list[str] = []
    with suppress(FileNotFoundError):
        listed = read_text(disks).split()
    if disk not in listed:
        raise UsageError(f"{disk} is not in {disks}, the list of disks that runs may overwrite")


def _is_runs_own(disk: str) -> bool:
    """A loop device over a file without a name, as open_loop_disk() makes it: nobody has it but a run."""
    name = os.path.basename(disk)
    if disk != f"/dev/{name}" or not re.fullmatch(r"loop\d+", name):
        return False
    with suppress(OSError):
        return read_text(f"/sys/block/{name}/loop/backing_file").rstrip("\n").endswith(" (deleted)")
    return False


def _copy(path: str, folder: str, uid: int) -> str:
    """A copy of a file of the caller's inbox in a place that is root's alone.

    :raise UsageError: it is not in there, not a file, or not the caller's.
    """
    name = os.path.basename(path)
    if path != f"{folder}/{INBOX}/{name}" or name in ("", ".", ".."):
        raise UsageError(f"{path} is not in the folder for files of this run")
    try:
        source = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}") from exc
    with os.fdopen(source, "rb") as file:
        state = os.fstat(source)
        if not stat.S_ISREG(state.st_mode) or state.st_uid != uid or state.st_size > _MOST_BYTES:
            raise UsageError(f"{path} is not a file of the user who runs us")
        target = f"{folder}/taken/{name}"
        with open(target + ".part", "wb") as copy:
            while chunk := file.read(1 << 20):
                copy.write(chunk)
        os.replace(target + ".part", target)
    return target


def hand_over(capture: str) -> None:
    """Let everybody read a capture.  It stays root's: its journal is replayed by root. :raise OSError:"""
    for path, _, names in os.walk(capture):
        os.chmod(path, 0o755)
        for name in names:
            if not os.path.islink(f"{path}/{name}"):
                os.chmod(f"{path}/{name}", 0o644)
