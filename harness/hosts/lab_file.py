# SPDX-License-Identifier: GPL-2.0-or-later
"""The file of lab machines (TOML): how each is reached, and what of it may be used.  docs/lab.md describes it.

[bigbox]
address = "192.0.2.7"
user = "tester"                     # not root: sudo without a password is used
key = "~/.ssh/apf"                  # private key, without a passphrase
host_key = "ssh-ed25519 AAAA..."    # the only one that is believed
jump = "gateway"                    # another machine of this file, through which this one is reached
variant = "nowait"                  # the model for the kernel that it runs, if no other is asked for
disk = "/dev/nvme1n1"               # may be overwritten; without: a loop device over a file in scratch
memory_mib = 4096                   # for one guest at most
kexec = true                        # may be booted into another kernel, at any time, whoever else is there
power = ["ipmitool", "-H", "192.0.2.8", "chassis", "power", "cycle"]   # how it comes back from one that hangs
"""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from harness.errors import UsageError
from harness.model.kernels import Variant

_HOST_KEY = re.compile(r"(ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa) [A-Za-z0-9+/]+=*")
_COORDINATOR = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*:\d{1,5}")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class LabHost:
    """One machine; docs/lab.md says what each key means.

    :ivar key: absolute path of the private key.
    :ivar fixes: findings ("F1") of which the kernel that runs there has the fix.
    :ivar scratch: folder of the machine for a swap file.
    :ivar memory_mib: for one guest at most; 0: what is available.
    :ivar disk_mib: of the swap file at most.
    :ivar agent: the agent that root has installed there; empty: it is sent, and every command runs as root.
    :ivar minutes: the longest that a run may have the machine.
    :ivar kexec: it may be booted into a kernel under test (kexec_boot.py).
    :ivar power: a command of this machine that switches its power off and on; run without a shell.
    :ivar boot_s: it is up this many seconds after a reset, at the latest.
    :ivar coordinator: "HOST:PORT" of the labgrid that has it as a place, and knows its address; empty: none.
    """

    name: str
    address: str
    user: str
    key: Path
    host_key: str
    port: int = 22
    jump: str = ""
    variant: str = Variant.NOWAIT.value
    fixes: tuple[str, ...] = ()
    disk: str = ""
    scratch: str = "/var/tmp"
    memory_mib: int = 0
    disk_mib: int = 4096
    minutes: int = 720
    agent: str = ""
    kexec: bool = False
    power: tuple[str, ...] = ()
    boot_s: int = 600
    coordinator: str = ""


_KEYS = {field.name: field for field in fields(LabHost) if field.name != "name"}
_NEEDED = ("address", "user", "key", "host_key")
_NUMBERS = {"port": 65535, "memory_mib": 1 << 24, "disk_mib": 1 << 24, "minutes": 60 * 24 * 7, "boot_s": 3600}
_LISTS = ("fixes", "power")


def default_lab() -> Path:
    """Where the file is if nobody says: $XDG_CONFIG_HOME/apf/lab.toml."""
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "apf" / "lab.toml"


def read_lab(path: Path) -> Mapping[str, LabHost]:
    """The machines by name.

    :raise UsageError: all that is wrong in the file, at once.
    """
    try:
        raw = tomllib.loads(path.read_text())
    except OSError as exc:
        raise UsageError(f"{path}: {exc.strerror}", hint="docs/lab.md describes the file of lab machines") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise UsageError(f"{path}: {exc}") from exc
    problems: list[str] = []
    found = {}
    for name, entry in raw.items():
        host = _host(name, entry, path.parent, problems)
        if host is not None:
            found[name] = host
    for host in found.values():
        problems += _jumps(host, found)
    if problems:
        raise UsageError("\n".join(f"{path}: {problem}" for problem in problems))
    return found


def find_lab_host(path: Path, name: str) -> tuple[LabHost, ...]:
    """The machine with this name, and those through which it is reached, outermost first.

    :raise UsageError: there is none, or the file is wrong.
    """
    hosts = read_lab(path)
    if name not in hosts:
        near = difflib.get_close_matches(name, hosts, n=1)
        raise UsageError(
            f"{path} has no machine {name!r}" + (f"; did you mean {near[0]!r}?" if near else ""),
            hint=f"known are {', '.join(sorted(hosts)) or 'none'}",
        )
    chain = [hosts[name]]
    while chain[0].jump:
        chain.insert(0, hosts[chain[0].jump])
    return tuple(chain)


def lab_text(name: str, host: LabHost) -> str:
    """The inverse of read_lab for one machine."""
    lines = [f"[{name}]"]
    for key, field in _KEYS.items():
        value = getattr(host, key)
        if key in _NEEDED or value != field.default:
            value = str(value) if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
            lines.append(f"{key} = {json.dumps(value, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


def _host(name: str, entry: Any, folder: Path, problems: list[str]) -> LabHost | None:
    before = len(problems)
    if not _NAME.fullmatch(name):
        problems.append(f"{name!r}: a name has letters, digits and - _ . only")
    if not isinstance(entry, dict):
        problems.append(f"{name}: not a table")
        return None
    for key, value in entry.items():
        if key not in _KEYS:
            near = difflib.get_close_matches(key, _KEYS, n=1)
            problems.append(f"{name}.{key}: unknown key" + (f"; did you mean {near[0]!r}?" if near else ""))
        elif key in _NUMBERS:
            if type(value) is not int or not 0 < value <= _NUMBERS[key]:
                problems.append(f"{name}.{key}: must be a number from 1 to {_NUMBERS[key]}")
        elif key == "kexec":
            if not isinstance(value, bool):
                problems.append(f"{name}.{key}: must be true or false")
        elif key in _LISTS:
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                problems.append(f"{name}.{key}: must be a list of strings")
        elif not isinstance(value, str) or any(ord(c) < 32 for c in value):
            problems.append(f"{name}.{key}: must be a string of one line")
    elsewhere = ("address",) if entry.get("coordinator") else ()
    problems += [f"{name}.{key}: missing" for key in _NEEDED if not entry.get(key) and key not in elsewhere]
    if len(problems) > before:
        return None
    if not _HOST_KEY.fullmatch(entry["host_key"]):
        problems.append(f"{name}.host_key: not a host key; `ssh-keyscan -t ed25519 ADDRESS` prints it after the name")
    if entry.get("variant", "nowait") not in list(Variant):
        problems.append(f"{name}.variant: must be one of {', '.join(Variant)}")
    for key in ("disk", "scratch", "agent"):
        if key in entry and not entry[key].startswith("/"):
            problems.append(f"{name}.{key}: must be an absolute path of the machine")
    if entry.get("address", "").startswith("-") or entry["user"].startswith("-"):
        problems.append(f"{name}: neither address nor user begins with -")
    if "coordinator" in entry and not _COORDINATOR.fullmatch(entry["coordinator"]):
        problems.append(f"{name}.coordinator: must be HOST:PORT")
    if entry.get("kexec") and not entry.get("power"):
        problems.append(f"{name}.kexec: needs power, a command that switches it off and on: a kernel may hang")
    if entry.get("kexec") and entry.get("agent"):
        problems.append(f"{name}.kexec: boots as root what it is sent, and this machine lets only its agent be root")
    key = folder / Path(entry["key"]).expanduser()
    lists = {key: tuple(entry.get(key, ())) for key in _LISTS}
    return LabHost(name, **{"address": "", **entry, "key": key, **lists})


def _jumps(host: LabHost, hosts: Mapping[str, LabHost]) -> list[str]:
    seen = [host.name]
    while host.jump:
        if host.jump not in hosts:
            return [f"{host.name}.jump: there is no machine {host.jump!r} in this file"]
        if host.jump in seen:
            return [f"{seen[0]}.jump: goes in a circle, {' by '.join([*seen, host.jump])}"]
        host = hosts[host.jump]
        seen.append(host.name)
    return []
