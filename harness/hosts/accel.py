# SPDX-License-Identifier: GPL-2.0-or-later
"""Can this machine run a virtual host with nested KVM, or must it be TCG?

A /dev/kvm that opens and even creates a VM proves nothing.  So cheap conditions first, each of which alone rules KVM
out, and then a functional test: a virtual host booted with KVM that runs a guest to its end.  The answer is kept for
this boot of the machine.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from harness.errors import ApfError, UsageError

FORCE = "APF_ACCEL"
"""Environment variable for experiments: "tcg" or "kvm" instead of the test's answer."""


@dataclass(frozen=True, slots=True)
class Accel:
    """``name`` is "kvm" or "tcg", ``reason`` says why."""

    name: str
    reason: str


def rule_out(root: Path = Path("/")) -> str:
    """Why KVM cannot work here, found without opening /dev/kvm; empty if it may.

    The processor flags matter because a virtual host needs them for its own KVM: without vmx or svm here there is
    nothing that could be passed on (arch/x86/kvm/cpuid.c:kvm_set_cpu_caps; parameter ``nested`` of kvm_intel, kvm_amd).
    """
    device = root / "dev/kvm"
    if not device.exists():
        return "there is no /dev/kvm"
    if not os.access(device, os.R_OK | os.W_OK):
        return "no permission to use /dev/kvm (add the user to the group kvm)"
    try:
        cpuinfo = (root / "proc/cpuinfo").read_text()
    except OSError as exc:
        return f"/proc/cpuinfo cannot be read: {exc.strerror}"
    flag = re.search(r"^flags\s*:.*\b(svm|vmx)\b", cpuinfo, re.MULTILINE)
    if flag is None:
        return "the processor has neither vmx nor svm"
    module = "kvm_amd" if flag.group(1) == "svm" else "kvm_intel"
    try:
        nested = (root / f"sys/module/{module}/parameters/nested").read_text().strip()
    except OSError:
        return f"{module} is not loaded"
    if nested not in ("Y", "1"):
        return f"{module} has nesting switched off"
    return ""


def find_accel(cache: Path, trial: Callable[[], None], *, root: Path = Path("/")) -> Accel:
    """The accelerator for virtual hosts.

    :param cache: folder where the answer is kept until the next boot.
    :param trial: boots a virtual host with KVM and runs a guest in it to its end, or raises an ApfError.
    :raise UsageError: APF_ACCEL holds something else than "kvm" or "tcg".
    """
    forced = os.environ.get(FORCE, "")
    if forced:
        if forced not in ("kvm", "tcg"):
            raise UsageError(f"{FORCE}={forced!r}: expected kvm or tcg")
        return Accel(forced, f"{FORCE} says so")
    reason = rule_out(root)
    if reason:
        return Accel("tcg", reason)
    boot = (root / "proc/sys/kernel/random/boot_id").read_text().strip()
    kept = cache / "accel.json"
    try:
        stored = json.loads(kept.read_text())
        if stored["boot"] == boot:
            return Accel(stored["name"], stored["reason"])
    except (OSError, ValueError, KeyError, TypeError):
        pass  # no answer yet, or one that nobody can read: ask again
    try:
        trial()
    except ApfError as exc:
        answer = Accel("tcg", f"nested KVM failed its test: {exc.message}")
    else:
        answer = Accel("kvm", "a guest ran to its end under nested KVM")
    cache.mkdir(parents=True, exist_ok=True)
    part = kept.with_suffix(f".{os.getpid()}")
    part.write_text(json.dumps({"boot": boot, **asdict(answer)}))
    part.replace(kept)
    return answer
